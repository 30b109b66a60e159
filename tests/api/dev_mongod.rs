//! Covers the development mongod: its data survives restarts, and no process stays behind.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use valet::dev::mongod::{Mongod, MongodError, MongodOptions};

/// Longest time for a process to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Data folder of the child process `server`, below; unset in an ordinary run.
const SERVER_DATA: &str = "VALET_TEST_MONGOD_DATA";

/// A folder that is removed with its test.
struct Folder(PathBuf);

impl Folder {
    /// Creates a folder whose name contains `name`.
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("valet-{name}-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Returns the options of a mongod with its data in the folder.
    fn options(&self) -> MongodOptions {
        MongodOptions::new(self.0.join("data"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Returns whether a process exists and is not a zombie.
pub fn runs(pid: u32) -> bool {
    let output = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8(output.stdout).unwrap();
    !state.trim().is_empty() && !state.starts_with('Z')
}

/// Returns the live processes with this value in this field of `ps`.
fn processes(field: &str, value: u32) -> Vec<u32> {
    let format = format!("pid=,stat=,{field}=");
    let output = Command::new("ps").args(["-e", "-o", &format]).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let pid = |line: &str| {
        let mut fields = line.split_whitespace();
        let (pid, state, found) = (fields.next()?, fields.next()?, fields.next()?);
        (!state.starts_with('Z') && found == value.to_string()).then(|| pid.parse().unwrap())
    };
    lines.lines().filter_map(pid).collect()
}

/// Waits until `holds` returns true; returns `false` if that takes longer than `limit`.
pub async fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}

/// Connects to a mongod.
async fn connect(mongod: &Mongod) -> Client {
    Client::with_uri_str(mongod.uri()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn data_survives_a_restart_on_another_port() {
    let folder = Folder::new("restart");
    let first = Mongod::start(folder.options()).await.unwrap();
    let (first_uri, first_pid) = (first.uri(), first.pid());
    let things = connect(&first).await.database("test").collection::<Document>("things");
    things.insert_one(doc! { "_id": 1, "kept": true }).await.unwrap();
    let address = first_uri.trim_start_matches("mongodb://").split('/').next().unwrap();
    first.stop().await.unwrap();
    assert!(!runs(first_pid));

    // Occupies the port, so that the second run has to take another one. The listener closes connections at once: mongod checks
    // whether the member in its configuration is itself, and would wait 30 s for a silent one.
    let squatter = tokio::net::TcpListener::bind(address).await.unwrap();
    let squatter = tokio::spawn(async move {
        loop {
            drop(squatter.accept().await);
        }
    });
    let second = Mongod::start(folder.options()).await.unwrap();
    assert_ne!(second.uri(), first_uri);
    let client = connect(&second).await;
    let things = client.database("test").collection::<Document>("things");
    let found = things.find_one(doc! { "_id": 1 }).await.unwrap().unwrap();
    assert!(found.get_bool("kept").unwrap());

    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    things.insert_one(doc! { "_id": 2 }).session(&mut session).await.unwrap();
    things.insert_one(doc! { "_id": 3 }).session(&mut session).await.unwrap();
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 1);
    session.commit_transaction().await.unwrap();
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 3);

    session.start_transaction().await.unwrap();
    things.delete_many(doc! {}).session(&mut session).await.unwrap();
    session.abort_transaction().await.unwrap();
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 3);
    squatter.abort();
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_mongod_ends_and_loses_no_data() {
    let folder = Folder::new("drop");
    let mongod = Mongod::start(folder.options()).await.unwrap();
    let pid = mongod.pid();
    let things = connect(&mongod).await.database("test").collection::<Document>("things");
    things.insert_one(doc! { "_id": 1 }).await.unwrap();
    assert!(runs(pid));
    drop(mongod);
    assert!(!runs(pid));

    let mongod = Mongod::start(folder.options()).await.unwrap();
    let things = connect(&mongod).await.database("test").collection::<Document>("things");
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 1);
    mongod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mongod_has_its_own_process_group_and_listens_on_loopback_only() {
    let folder = Folder::new("group");
    let mongod = Mongod::start(folder.options()).await.unwrap();
    // Ctrl-C reaches the terminal's foreground group, which is the test's.
    assert_eq!(processes("pgid", mongod.pid()), [mongod.pid()]);

    let client = connect(&mongod).await;
    let options = client.database("admin").run_command(doc! { "getCmdLineOpts": 1 }).await.unwrap();
    let net = options.get_document("parsed").unwrap().get_document("net").unwrap();
    assert_eq!(net.get_str("bindIp").unwrap(), "127.0.0.1");
    let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await.unwrap();
    assert_eq!(status.get_i64("pid").unwrap(), i64::from(mongod.pid()));
    mongod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn second_mongod_on_the_same_data_is_rejected() {
    let folder = Folder::new("lock");
    let first = Mongod::start(folder.options()).await.unwrap();
    let start = Instant::now();
    let error = Mongod::start(folder.options()).await.unwrap_err();
    assert!(matches!(&error, MongodError::InUse(path) if *path == folder.options().data_dir), "{error}");
    assert!(error.to_string().contains(folder.0.to_str().unwrap()), "{error}");
    // The time that a second mongod waits for the first one to end.
    assert!(start.elapsed() >= Duration::from_secs(15));
    assert!(runs(first.pid()), "the first mongod is not affected");

    // The next mongod waits for the lock while the first one ends.
    let (next, ended) = tokio::join!(Mongod::start(folder.options()), async {
        // The next mongod has tried to take the lock by now.
        tokio::time::sleep(Duration::from_secs(1)).await;
        first.stop().await
    });
    ended.unwrap();
    next.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn unwritable_folder_is_named_in_one_line() {
    let folder = Folder::new("unwritable");
    std::fs::write(folder.0.join("file"), "").unwrap();
    let data = folder.0.join("file/data");
    let error = Mongod::start(MongodOptions::new(&data)).await.unwrap_err().to_string();
    assert!(error.contains(data.to_str().unwrap()) && !error.contains('\n'), "{error}");
}

#[tokio::test]
async fn error_of_mongod_about_bad_data_is_in_the_message() {
    let folder = Folder::new("bad");
    let data = folder.options().data_dir;
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("WiredTiger.turtle"), "not what WiredTiger writes").unwrap();
    std::fs::write(data.join("storage.bson"), "not BSON").unwrap();
    let error = Mongod::start(folder.options()).await.unwrap_err();
    assert!(matches!(error, MongodError::Ended { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("storage engine metadata file") && error.contains("mongod.log") && !error.contains('\n'), "{error}");
}

#[test]
fn named_file_that_is_not_mongod_is_reported_in_one_line() {
    let folder = Folder::new("named");
    let output = Server::command(&folder.options().data_dir).env("VALET_MONGOD", "/nonexistent/mongod").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines = stderr.lines().filter(|line| line.contains("/nonexistent/mongod")).count();
    assert!(!output.status.success() && lines == 1, "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_server_leaves_no_process_behind() {
    let folder = Folder::new("killed");
    let mut server = Server::start(&folder.options().data_dir);
    let [watchdog] = server.children().into_iter().filter(|&pid| pid != server.mongod).collect::<Vec<_>>()[..] else {
        panic!("a server has its mongod and one watchdog");
    };
    // The watchdog ignores the signals that a terminal sends to all of its processes.
    for signal in ["-HUP", "-INT", "-TERM"] {
        assert!(Command::new("kill").args([signal, &watchdog.to_string()]).status().unwrap().success());
    }
    server.kill();
    assert!(within(PATIENCE, || !runs(server.mongod)).await, "mongod outlives its server");
    assert!(within(PATIENCE, || !runs(watchdog)).await, "the watchdog outlives mongod");

    // The next server may start at once after a kill.
    let mut server = Server::start(&folder.options().data_dir);
    server.kill();
    let mongod = Mongod::start(folder.options()).await.unwrap();
    assert!(!runs(server.mongod));
    mongod.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_server_leaves_no_process_behind() {
    let folder = Folder::new("stopped");
    let mut server = Server::start(&folder.options().data_dir);
    assert_eq!(server.children().len(), 2, "mongod and its watchdog");
    server.process.stdin.as_mut().unwrap().write_all(b"stop\n").unwrap();
    assert!(within(PATIENCE, || !runs(server.mongod)).await);
    assert!(within(PATIENCE, || server.children().is_empty()).await, "{:?}", server.children());
    assert!(runs(server.process.id()));
    server.kill();
}

/// A child process with a mongod, to be killed.
struct Server {
    process: Child,
    /// Process id of mongod.
    mongod: u32,
}

impl Server {
    /// Returns a command that runs this binary's test `server`.
    fn command(data: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["dev_mongod::server", "--exact", "--ignored", "--nocapture"]).env(SERVER_DATA, data);
        command
    }

    /// Starts the process, and waits until its mongod runs.
    fn start(data: &Path) -> Self {
        let mut process = Self::command(data).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let pid = |line: String| line.split_once("mongod pid ")?.1.trim().parse().ok();
        let mongod = stdout.lines().find_map(|line| pid(line.unwrap())).expect("the server starts a mongod");
        assert!(runs(mongod));
        Self { process, mongod }
    }

    /// Returns the ids of the process's children.
    fn children(&self) -> Vec<u32> {
        processes("ppid", self.process.id())
    }

    /// Sends SIGKILL, so that no code of the server runs afterwards.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "only `Server` runs this test"]
async fn server() {
    let Ok(data) = std::env::var(SERVER_DATA) else {
        crate::skipping::skip("only `Server` runs this test");
        return;
    };
    let mongod = Mongod::start(MongodOptions::new(data)).await.unwrap();
    println!("mongod pid {}", mongod.pid());
    // The pipe ends with the test, even if the test is killed.
    let mut lines = std::io::stdin().lines();
    if let Some(Ok(line)) = lines.next() {
        assert_eq!(line, "stop");
        mongod.stop().await.unwrap();
        lines.next();
    }
}
