//! The real program as a process, and the settings it is started with. Shared by the test binaries.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// What the program needs of this environment to find its tools; nothing in it is a setting.
const INHERITED: [&str; 6] = ["PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "VALET_MONGOD", "LD_LIBRARY_PATH"];

/// Which build is tested, where it is not this one.
pub const PROGRAM: &str = "VALET_TEST_PROGRAM";

/// A running `valet`; killed when dropped.
pub struct Process {
    child: Mutex<Child>,
    out: Output,
    err: Output,
}

type Output = Arc<Mutex<String>>;

impl Process {
    /// Starts it with these settings and no other.
    pub fn start(arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let inherited = INHERITED.iter().filter_map(|name| Some((*name, std::env::var(name).ok()?)));
        // Another build, such as the optimised one, for all or for this one.
        let named = env.iter().find(|(name, _)| *name == PROGRAM).map(|(_, program)| (*program).to_owned());
        let named = named.or_else(|| std::env::var(PROGRAM).ok());
        let program = named.unwrap_or_else(|| env!("CARGO_BIN_EXE_valet").to_owned());
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(inherited)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, err) = (collect_output(child.stdout.take().unwrap()), collect_output(child.stderr.take().unwrap()));
        Self { child: Mutex::new(child), out, err }
    }

    pub fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    pub fn has_ended(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_some()
    }

    pub fn out(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    pub fn err(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    /// Looks into its output until there is what is sought.
    pub async fn find<T>(&self, seek: impl Fn(&Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = seek(self) {
                return found;
            }
            let ended = self.child.lock().unwrap().try_wait().unwrap();
            let said = || format!("{}{}", self.out(), self.err());
            assert!(ended.is_none() && began.elapsed() < Duration::from_secs(60), "{ended:?}, {}", said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    /// Its end, which comes within `limit`, and all that it said.
    pub async fn end(self, limit: Duration) -> (ExitStatus, String, String) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.lock().unwrap().try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < limit, "it still runs after {limit:?}: {}", self.err());
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        // The pipes' readers hold the other references until the last byte is here.
        while Arc::strong_count(&self.out) + Arc::strong_count(&self.err) > 2 {
            assert!(began.elapsed() < limit + Duration::from_secs(5), "something else holds its output open");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (status, self.out(), self.err())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.get_mut().unwrap().kill();
        let _ = self.child.get_mut().unwrap().wait();
    }
}

fn collect_output(from: impl Read + Send + 'static) -> Output {
    let text = Output::default();
    let gathered = text.clone();
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            gathered.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    text
}

/// Settings by name.
#[derive(Clone)]
pub struct Settings(pub Vec<(&'static str, String)>);

impl Settings {
    /// With another value; the empty one counts as none.
    pub fn with(&self, name: &'static str, value: &str) -> Self {
        let mut changed = self.clone();
        changed.0.retain(|(known, _)| *known != name);
        changed.0.push((name, value.to_owned()));
        changed
    }

    /// With none.
    pub fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(known, _)| *known != name).cloned().collect())
    }

    /// Starts the program with these arguments.
    pub fn run(&self, arguments: &[&str]) -> Process {
        let env: Vec<_> = self.0.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Process::start(arguments, &env)
    }
}

/// The address in the log line that says so.
pub fn listening_at(log: &str) -> Option<String> {
    log.lines().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line["message"] == "listening").then(|| line["address"].as_str().map(str::to_owned))?
    })
}
