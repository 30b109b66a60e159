//! The real program as a process, and a client that knows nothing but its address.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::app::{PASSWORD, declared};

/// What the program needs of this environment to find its tools; nothing in it is a setting.
const INHERITED: [&str; 6] = ["PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "VALET_MONGOD", "LD_LIBRARY_PATH"];

/// A running `valet`; killed when dropped.
pub struct Process {
    child: Child,
    out: Output,
    err: Output,
}

type Output = Arc<Mutex<String>>;

impl Process {
    /// Starts it with these settings and no other.
    pub fn start(arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let inherited = INHERITED.iter().filter_map(|name| Some((*name, std::env::var(name).ok()?)));
        // Another build, such as the optimised one.
        let program = std::env::var("VALET_TEST_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_valet").to_owned());
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
        let (out, err) = (gather(child.stdout.take().unwrap()), gather(child.stderr.take().unwrap()));
        Self { child, out, err }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn out(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    pub fn err(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    /// Looks into its output until there is what is sought.
    pub async fn find<T>(&mut self, seek: impl Fn(&Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = seek(self) {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            let said = || format!("{}{}", self.out(), self.err());
            assert!(ended.is_none() && began.elapsed() < Duration::from_secs(60), "{ended:?}, {}", said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    /// Its end, which comes within `limit`, and all that it said.
    pub async fn end(mut self, limit: Duration) -> (ExitStatus, String, String) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
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
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(from: impl Read + Send + 'static) -> Output {
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

/// A client of a server somewhere.
pub struct Client {
    pub base: String,
    pub http: reqwest::Client,
    pub token: Option<String>,
}

impl Client {
    pub fn of(base: impl Into<String>) -> Self {
        Self { base: base.into(), http: reqwest::Client::new(), token: None }
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).timeout(Duration::from_secs(30));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Fetches a presigned URL.
    pub async fn bytes(&self, url: &Value) -> Vec<u8> {
        let answer = self.http.get(url.as_str().unwrap()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap().to_vec()
    }

    /// Signs up, or in, and keeps the token.
    pub async fn enter(&mut self, door: &str, email: &str) {
        let (status, session) = self.post(&format!("/api/auth/{door}"), &json!({ "email": email, "password": PASSWORD })).await;
        assert!(status.is_success(), "{status} {session}");
        self.token = Some(session["token"].as_str().unwrap().to_owned());
    }

    /// From bytes to a ready image, its URLs fetched: the image, and every presigned URL that was seen.
    pub async fn upload(&self, bytes: &[u8]) -> (Value, Vec<String>) {
        let (status, ticket) = self.post("/api/images/upload", &declared("sea.png", "image/png", bytes)).await;
        assert_eq!(status, 201, "{ticket}");
        let upload = &ticket["upload"];
        let mut put = self.http.put(upload["url"].as_str().unwrap());
        for (name, value) in upload["headers"].as_object().unwrap() {
            put = put.header(name, value.as_str().unwrap());
        }
        assert_eq!(put.body(bytes.to_vec()).send().await.unwrap().status(), 200);
        let path = format!("/api/images/{}", ticket["id"].as_str().unwrap());
        let (status, image) = self.call(Method::POST, &format!("{path}/confirm"), None).await;
        assert_eq!(status, 200, "{image}");
        let (_, gallery) = self.get("/api/images/gallery").await;
        assert_eq!(gallery["images"][0]["id"], ticket["id"]);
        let (_, download) = self.get(&format!("{path}/download")).await;
        let urls = [&gallery["images"][0]["url"], &download["url"]];
        for url in urls {
            assert!(self.bytes(url).await == bytes, "the bytes that were sent");
        }
        let seen = [upload["url"].clone(), image["url"].clone(), urls[0].clone(), urls[1].clone()];
        (image, seen.into_iter().map(|url| url.as_str().unwrap().to_owned()).collect())
    }
}
