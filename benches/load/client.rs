//! A minimal HTTP/1.1 client, and loads that it sends over many connections. On a small machine, a heavier client would dominate
//! the measurement.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Status of a successful request.
pub const OK: u16 = 200;
/// Status of a request that has created something.
pub const CREATED: u16 = 201;
/// Time after which [`send_each`] sends no more requests.
const SEND_EACH_DEADLINE: Duration = Duration::from_secs(60);

/// An open connection, for many requests.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to a server.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::with_capacity(128 * 1024) }
    }

    /// Sends a whole request and reads the whole answer; returns its status and body.
    pub async fn send(&mut self, request: &[u8]) -> (u16, &[u8]) {
        self.stream.write_all(request).await.unwrap();
        self.buffer.clear();
        let (mut head, mut length) = (0, None);
        loop {
            if length.is_some_and(|length| self.buffer.len() >= head + length) {
                break;
            }
            assert_ne!(self.stream.read_buf(&mut self.buffer).await.unwrap(), 0, "the server closed the connection");
            if length.is_none()
                && let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")
            {
                head = end + 4;
                length = Some(content_length(&self.buffer[..head]));
            }
        }
        // The status follows `HTTP/1.1 `.
        let status = str::from_utf8(&self.buffer[9..12]).unwrap().parse().unwrap();
        (status, &self.buffer[head..])
    }

    /// Runs [`Connection::send`], asserts the status and parses the body as JSON.
    pub async fn expect(&mut self, request: &[u8], expected_status: u16) -> Value {
        let (status, body) = self.send(request).await;
        assert_eq!(status, expected_status, "{}", String::from_utf8_lossy(body));
        serde_json::from_slice(body).unwrap_or(Value::Null)
    }
}

/// Returns the value of `Content-Length` in the head of a response; 0 without one.
fn content_length(head: &[u8]) -> usize {
    let head = str::from_utf8(head).unwrap().to_ascii_lowercase();
    let Some((_, after)) = head.split_once("content-length: ") else { return 0 };
    after.split_once("\r\n").unwrap().0.parse().unwrap()
}

/// Returns the text of a request.
pub fn request(method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: bench\r\n");
    if let Some(token) = token {
        text += &format!("authorization: Bearer {token}\r\n");
    }
    match body {
        Some(body) => {
            let body = body.to_string();
            text += &format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
        None => text += "content-length: 0\r\n\r\n",
    }
    text.into_bytes()
}

/// Result of a load.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Answered requests per second.
    pub rate: f64,
    /// Median time of an answer in milliseconds.
    pub p50: f64,
    /// 99th percentile of the times in milliseconds.
    pub p99: f64,
}

/// Runs the `work` of each worker repeatedly, until the time is up or no work is left.
pub async fn run_load<F, W>(workers: usize, time: Duration, work: F) -> Load
where
    F: Fn(usize) -> W,
    W: AsyncWork,
{
    let until = Instant::now() + time;
    let began = Instant::now();
    let tasks: Vec<_> = (0..workers).map(|worker| tokio::spawn(run(work(worker), until))).collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    let seconds = began.elapsed().as_secs_f64();
    all.sort_unstable();
    let at = |share: f64| {
        all.get(((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1))).map_or(0.0, |d| d.as_secs_f64() * 1e3)
    };
    Load { rate: all.len() as f64 / seconds, p50: at(0.5), p99: at(0.99) }
}

/// Does units of the work until `until`, or until none is left; returns their times.
async fn run(mut work: impl AsyncWork, until: Instant) -> Vec<Duration> {
    let mut times = Vec::with_capacity(1 << 15);
    while Instant::now() < until {
        work.begin().await;
        let began = Instant::now();
        if !work.once().await {
            break;
        }
        times.push(began.elapsed());
    }
    times
}

/// Work of one worker.
pub trait AsyncWork: Send + 'static {
    /// Waits until the next unit may begin; the wait is not measured.
    fn begin(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Does one unit of the work. Returns `false` if none is left.
    fn once(&mut self) -> impl Future<Output = bool> + Send;
}

/// Requests to one server, one after the other, which `next` returns; all have the same expected status.
pub struct Requests<N> {
    address: SocketAddr,
    connection: Option<Connection>,
    next: N,
    expected_status: u16,
}

impl<N: FnMut() -> Option<Arc<[u8]>> + Send + 'static> Requests<N> {
    pub fn new(address: SocketAddr, expected_status: u16, next: N) -> Self {
        Self { address, connection: None, next, expected_status }
    }
}

impl<N: FnMut() -> Option<Arc<[u8]>> + Send + 'static> AsyncWork for Requests<N> {
    async fn once(&mut self) -> bool {
        let Some(request) = (self.next)() else { return false };
        let connection = match &mut self.connection {
            Some(open) => open,
            none => none.insert(Connection::open(self.address).await),
        };
        let (status, body) = connection.send(&request).await;
        assert_eq!(status, self.expected_status, "{}", String::from_utf8_lossy(body));
        true
    }
}

/// Repeats the same request on each of `connections`.
pub async fn repeat(address: SocketAddr, connections: usize, time: Duration, request: Vec<u8>) -> Load {
    let request: Arc<[u8]> = request.into();
    run_load(connections, time, |_| {
        let request = request.clone();
        Requests::new(address, OK, move || Some(request.clone()))
    })
    .await
}

/// Sends each request of a list once, for at most [`SEND_EACH_DEADLINE`].
pub async fn send_each(address: SocketAddr, connections: usize, expected_status: u16, requests: Vec<Vec<u8>>) -> Load {
    let requests: Arc<[Arc<[u8]>]> = requests.into_iter().map(Arc::from).collect();
    let next = Arc::new(AtomicUsize::new(0));
    run_load(connections, SEND_EACH_DEADLINE, |_| {
        let (requests, next) = (requests.clone(), next.clone());
        Requests::new(address, expected_status, move || requests.get(next.fetch_add(1, Ordering::Relaxed)).cloned())
    })
    .await
}
