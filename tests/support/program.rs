//! Runs the program as a process, with its settings. Shared by the test binaries.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Environment variables that every process gets because the program needs them to find its tools; none of them is a setting.
const INHERITED: [&str; 6] = ["PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "VALET_MONGOD", "LD_LIBRARY_PATH"];

/// Environment variable with the path of another build of `valet` to test.
pub const PROGRAM: &str = "VALET_TEST_PROGRAM";

/// A running `valet`; killed when dropped.
pub struct Process {
    child: Mutex<Child>,
    out: Output,
    err: Output,
}

/// Text that a process has written to a pipe so far.
type Output = Arc<Mutex<String>>;

impl Process {
    /// Starts the program with exactly these settings.
    pub fn start(arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let inherited = INHERITED.iter().filter_map(|name| Some((*name, std::env::var(name).ok()?)));
        // `PROGRAM` in `env` selects the build of this process; in the environment of the tests, that of all processes.
        let program = env.iter().find(|(name, _)| *name == PROGRAM).map(|(_, program)| (*program).to_owned());
        let program = program.or_else(|| std::env::var(PROGRAM).ok());
        let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_valet").to_owned());
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

    /// Returns the id of the process.
    pub fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// Returns whether the process has ended.
    pub fn has_ended(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_some()
    }

    /// Returns the standard output so far.
    pub fn out(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    /// Returns the standard error so far.
    pub fn err(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    /// Polls the process until `seek` returns a value; panics after 60 s, or if the process ends first.
    pub async fn wait_for<T>(&self, seek: impl Fn(&Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = seek(self) {
                return found;
            }
            let ended = self.child.lock().unwrap().try_wait().unwrap();
            let output = || format!("{}{}", self.out(), self.err());
            assert!(
                ended.is_none() && began.elapsed() < Duration::from_secs(60),
                "not found within 60 s or before its end ({ended:?}): {}",
                output()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a signal, such as `-TERM`.
    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    /// Waits for the process to end within `limit`; returns its status and output.
    pub async fn wait_for_end(self, limit: Duration) -> Ended {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.lock().unwrap().try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < limit, "the process still runs after {limit:?}: {}", self.err());
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        // The threads that read the pipes own the other references until they have read the last byte.
        while Arc::strong_count(&self.out) + Arc::strong_count(&self.err) > 2 {
            assert!(began.elapsed() < limit + Duration::from_secs(5), "another process holds the output open");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ended { status, out: self.out(), err: self.err() }
    }
}

/// Status and output of a process that has ended.
pub struct Ended {
    pub status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.get_mut().unwrap().kill();
        let _ = self.child.get_mut().unwrap().wait();
    }
}

/// Collects the output in a thread, so that a full pipe never blocks the process.
fn collect_output(pipe: impl Read + Send + 'static) -> Output {
    let text = Output::default();
    let collected = text.clone();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            collected.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    text
}

/// Settings by name.
#[derive(Clone)]
pub struct Settings(pub Vec<(&'static str, String)>);

impl Settings {
    /// Returns the settings with another value; an empty value counts as unset.
    pub fn with(&self, name: &'static str, value: &str) -> Self {
        let mut changed = self.clone();
        changed.0.retain(|(known, _)| *known != name);
        changed.0.push((name, value.to_owned()));
        changed
    }

    /// Returns the settings without this one.
    pub fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(known, _)| *known != name).cloned().collect())
    }

    /// Starts the program with these arguments.
    pub fn run(&self, arguments: &[&str]) -> Process {
        let env: Vec<_> = self.0.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Process::start(arguments, &env)
    }
}

/// Returns the address in the log line of a listening server.
pub fn listening_at(log: &str) -> Option<String> {
    log.lines().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line["message"] == "listening").then(|| line["address"].as_str().map(str::to_owned))?
    })
}
