//! A replica set of mongod processes on loopback that can be killed, stopped, stepped down and partitioned.
//!
//! Members and clients connect to each member through its proxy, so that members can be cut off from each other while clients
//! still reach all of them. No mongod outlives this process, however it ends.

use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use mongodb::{
    Client,
    bson::{Document, doc},
    options::{ClientOptions, ServerAddress},
};

use super::{
    cluster::free_port,
    proxy::{Fault, Proxy},
};

const NAME: &str = "faults";
/// Longest wait for the first primary and for the next one, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Text in the first message of a mongod to another member, which drivers do not send.
const MEMBER: &[u8] = b"internalClient";

/// Shell script that reads lines `guard PID` and `release PID`. When its standard input is closed, it kills the processes that are
/// guarded then.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
guarded=
while read -r command pid; do
    case $command in
        guard) guarded="$guarded $pid" ;;
        release)
            left=
            for other in $guarded; do [ "$other" = "$pid" ] || left="$left $other"; done
            guarded=$left ;;
    esac
done
[ -z "$guarded" ] || kill -KILL $guarded
"#;

/// A replica set; members are numbered from 0.
pub struct ReplicaSet {
    members: Vec<Member>,
    watchdog: Mutex<ChildStdin>,
    binary: PathBuf,
    dir: PathBuf,
}

/// A mongod process, and the proxy through which members and clients connect to it.
struct Member {
    port: u16,
    proxy: Proxy,
    child: Mutex<Option<Child>>,
}

impl Drop for ReplicaSet {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|number| self.kill(number));
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl ReplicaSet {
    /// Starts `count` members in `dir` and waits for a primary.
    pub async fn start(count: usize, dir: &Path) -> Self {
        let mut watchdog = Command::new("sh");
        watchdog.args(["-c", WATCHDOG, "mongod-watchdog"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let watchdog = Mutex::new(watchdog.spawn().unwrap().stdin.take().unwrap());
        let mut members = Vec::new();
        for _ in 0..count {
            let port = free_port();
            let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], port))).await;
            members.push(Member { port, proxy, child: Mutex::default() });
        }
        let set = Self { members, watchdog, binary: binary(), dir: dir.join("replica-set") };
        (0..count).for_each(|number| set.spawn(number));
        let members: Vec<_> = set
            .members
            .iter()
            .zip(0..)
            .map(|(member, id)| doc! { "_id": id, "host": member.proxy.address().to_string() })
            .collect();
        // Less than MongoDB's defaults, so that an election takes seconds.
        let settings = doc! { "electionTimeoutMillis": 3000, "heartbeatIntervalMillis": 500, "heartbeatTimeoutSecs": 2, "catchUpTimeoutMillis": 2000 };
        let config = doc! { "_id": NAME, "members": members, "settings": settings };
        let began = Instant::now();
        while set.run(0, doc! { "replSetInitiate": config.clone() }).await.is_err() {
            assert!(began.elapsed() < PATIENCE, "the set cannot be initiated");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        set.primary().await;
        set
    }

    /// Returns the URI for clients, which connect through the proxies.
    pub fn uri(&self) -> String {
        let hosts: Vec<_> = self.members.iter().map(|member| member.proxy.address().to_string()).collect();
        format!("mongodb://{}/?replicaSet={NAME}", hosts.join(","))
    }

    /// Waits for a primary and returns the number of the one that was elected last.
    pub async fn primary(&self) -> usize {
        let began = Instant::now();
        loop {
            let mut found = Vec::new();
            for number in 0..self.members.len() {
                let Ok(hello) = self.run(number, doc! { "hello": 1 }).await else { continue };
                if hello.get_bool("isWritablePrimary").unwrap() {
                    found.push((hello.get_object_id("electionId").unwrap(), number));
                }
            }
            if let Some((_, number)) = found.into_iter().max() {
                return number;
            }
            assert!(began.elapsed() < PATIENCE, "no primary is elected");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until a member other than `previous` is primary, and returns its number.
    pub async fn primary_other_than(&self, previous: usize) -> usize {
        let began = Instant::now();
        loop {
            let primary = self.primary().await;
            if primary != previous {
                return primary;
            }
            assert!(began.elapsed() < PATIENCE, "{previous} stays the primary");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Makes the primary step down for some seconds.
    pub async fn step_down(&self) {
        let primary = self.primary().await;
        // The answer may be a broken connection, or an error if no secondary has caught up.
        let _ = self.run(primary, doc! { "replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 3 }).await;
    }

    /// Sends SIGKILL; does nothing if the member is not running.
    pub fn kill(&self, number: usize) {
        if let Some(mut child) = self.members[number].child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
            self.send_to_watchdog("release", child.id());
        }
    }

    /// Sends a signal, such as `-STOP` or `-CONT`.
    pub fn signal(&self, number: usize, name: &str) {
        let pid = self.members[number].child.lock().unwrap().as_ref().expect("the member runs").id();
        assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
    }

    /// Starts the members that are not running.
    pub fn restart(&self) {
        for number in 0..self.members.len() {
            if self.members[number].child.lock().unwrap().is_none() {
                self.spawn(number);
            }
        }
    }

    /// Stops other members from reaching this one through its proxy; clients still reach it.
    pub fn isolate(&self, number: usize) {
        self.members[number].proxy.set(Fault::BlackHoleFor(MEMBER));
    }

    /// Lets the members reach each other again.
    pub fn heal(&self) {
        self.members.iter().for_each(|member| member.proxy.heal());
    }

    /// Runs a command on this member, without its proxy, for at most ten seconds.
    pub async fn run(&self, number: usize, command: Document) -> mongodb::error::Result<Document> {
        let run = async { self.direct(number).database("admin").run_command(command).await };
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, run).await.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }

    /// Returns a client that is connected to this member only, without its proxy.
    pub fn direct(&self, number: usize) -> Client {
        let host = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: Some(self.members[number].port) };
        let options = ClientOptions::builder().hosts(vec![host]).direct_connection(true);
        let options = options.server_selection_timeout(Duration::from_secs(2)).connect_timeout(Duration::from_secs(2));
        Client::with_options(options.build()).unwrap()
    }

    /// Returns the path of a member's log.
    fn log(&self, number: usize) -> PathBuf {
        self.dir.join(format!("{number}.log"))
    }

    /// Starts the process of a member.
    fn spawn(&self, number: usize) {
        let (member, data) = (&self.members[number], self.dir.join(number.to_string()));
        std::fs::create_dir_all(&data).unwrap();
        let log = File::options().create(true).append(true).open(self.log(number)).unwrap();
        let child = Command::new(&self.binary)
            .args(["--bind_ip", "127.0.0.1", "--port", &member.port.to_string(), "--nounixsocket", "--replSet", NAME])
            .args(["--oplogSize", "64", "--wiredTigerCacheSizeGB", "0.25", "--dbpath"])
            .arg(&data)
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            // For fail points, which some tests set.
            .args(["--setParameter", "enableTestCommands=1"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.send_to_watchdog("guard", child.id());
        *member.child.lock().unwrap() = Some(child);
    }

    /// Sends a command of [`WATCHDOG`].
    fn send_to_watchdog(&self, command: &str, pid: u32) {
        let _ = writeln!(self.watchdog.lock().unwrap(), "{command} {pid}");
    }
}

/// Returns the mongod binary that `valet dev` uses.
pub fn binary() -> PathBuf {
    let found = Command::new("sh").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("localstack/mongod")).output().unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    PathBuf::from(String::from_utf8(found.stdout).unwrap().lines().last().unwrap())
}
