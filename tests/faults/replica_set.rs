//! A replica set of mongod on loopback, to be killed, stopped, stepped down and partitioned.
//!
//! Members and clients know each member by its proxy, so that members can be cut off from each other while clients still reach
//! all of them. Whatever happens to this process, no mongod outlives it.

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

use super::proxy::{Fault, Proxy};

const NAME: &str = "faults";
/// From the start to a primary, and from one primary to the next, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a mongod says first to another, and no driver does.
const MEMBER: &[u8] = b"internalClient";

/// Kills what it was told to guard when its input ends, however that came.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
guarded=
while read -r word pid; do
    case $word in
        guard) guarded="$guarded $pid" ;;
        release)
            left=
            for one in $guarded; do [ "$one" = "$pid" ] || left="$left $one"; done
            guarded=$left ;;
    esac
done
[ -z "$guarded" ] || kill -KILL $guarded
"#;

/// Its members are numbered from 0.
pub struct ReplicaSet {
    members: Vec<Member>,
    watchdog: Mutex<ChildStdin>,
    binary: PathBuf,
    dir: PathBuf,
}

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
    /// So many members in `dir`, one of which is the primary.
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

    /// For clients, who see the members through their proxies.
    pub fn uri(&self) -> String {
        let hosts: Vec<_> = self.members.iter().map(|member| member.proxy.address().to_string()).collect();
        format!("mongodb://{}/?replicaSet={NAME}", hosts.join(","))
    }

    /// The number of the primary that was elected last, once there is one.
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

    /// Another than this one, once it is elected.
    pub async fn primary_but(&self, former: usize) -> usize {
        let began = Instant::now();
        loop {
            let primary = self.primary().await;
            if primary != former {
                return primary;
            }
            assert!(began.elapsed() < PATIENCE, "{former} stays the primary");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Tells the primary to step down for some seconds.
    pub async fn step_down(&self) {
        let primary = self.primary().await;
        // The answer may be a broken connection; refused when no secondary has caught up.
        let _ = self.run(primary, doc! { "replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 3 }).await;
    }

    /// SIGKILL. Nothing when it does not run.
    pub fn kill(&self, number: usize) {
        if let Some(mut child) = self.members[number].child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
            self.tell("release", child.id());
        }
    }

    /// `-STOP`, `-CONT`.
    pub fn signal(&self, number: usize, name: &str) {
        let pid = self.members[number].child.lock().unwrap().as_ref().expect("it runs").id();
        assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
    }

    /// Starts those that do not run.
    pub fn restart(&self) {
        for number in 0..self.members.len() {
            if self.members[number].child.lock().unwrap().is_none() {
                self.spawn(number);
            }
        }
    }

    /// The other members hear nothing of this one any more, and clients do.
    pub fn isolate(&self, number: usize) {
        self.members[number].proxy.set(Fault::BlackHoleFor(MEMBER));
    }

    /// They hear each other again.
    pub fn heal(&self) {
        self.members.iter().for_each(|member| member.proxy.heal());
    }

    /// A command to this member, past its proxy.
    pub async fn run(&self, number: usize, command: Document) -> mongodb::error::Result<Document> {
        let run = async { self.direct(number).database("admin").run_command(command).await };
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, run).await.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }

    /// A client of this member alone, past its proxy.
    pub fn direct(&self, number: usize) -> Client {
        let host = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: Some(self.members[number].port) };
        let options = ClientOptions::builder().hosts(vec![host]).direct_connection(true);
        let options = options.server_selection_timeout(Duration::from_secs(2)).connect_timeout(Duration::from_secs(2));
        Client::with_options(options.build()).unwrap()
    }

    fn log(&self, number: usize) -> PathBuf {
        self.dir.join(format!("{number}.log"))
    }

    fn spawn(&self, number: usize) {
        let (member, data) = (&self.members[number], self.dir.join(number.to_string()));
        std::fs::create_dir_all(&data).unwrap();
        let log = File::options().create(true).append(true).open(self.log(number)).unwrap();
        let child = Command::new(&self.binary)
            .args(["--bind_ip", "127.0.0.1", "--port", &member.port.to_string(), "--nounixsocket", "--replSet", NAME])
            .args(["--oplogSize", "64", "--wiredTigerCacheSizeGB", "0.25", "--dbpath"])
            .arg(&data)
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            .args(["--setParameter", "enableTestCommands=1"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.tell("guard", child.id());
        *member.child.lock().unwrap() = Some(child);
    }

    fn tell(&self, word: &str, pid: u32) {
        let _ = writeln!(self.watchdog.lock().unwrap(), "{word} {pid}");
    }
}

/// As `valet dev` finds it.
pub fn binary() -> PathBuf {
    let found = Command::new("sh").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("localstack/mongod")).output().unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    PathBuf::from(String::from_utf8(found.stdout).unwrap().lines().last().unwrap())
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
