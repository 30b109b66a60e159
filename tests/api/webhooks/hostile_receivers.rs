//! Covers receivers that never answer, answer without end, or do not speak HTTP: each attempt ends within its deadline, and the
//! server reads little of what they send.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use valet::store::Attempt;

use super::*;

/// Seconds of an attempt that its deadline (15 s) ends, with some time for a busy machine.
const AT_THE_DEADLINE: Range<u64> = 14..22;
/// Seconds of an attempt that ends before its deadline.
const SOON: Range<u64> = 0..10;

/// The bytes that a receiver sends after it has read a request.
#[derive(Clone, Copy)]
struct Script {
    /// Sent at once.
    head: &'static [u8],
    /// Sent again and again until the connection is closed. If it is empty, the receiver closes the connection.
    piece: &'static [u8],
    /// Pause between two pieces; `None` sends no piece and keeps the connection open.
    pause: Option<Duration>,
}

/// Starts a receiver; returns its port and the number of bytes that it could send.
async fn serve(script: Script) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent = Arc::<AtomicU64>::default();
    let counted = sent.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(run(script, stream, counted.clone()));
        }
    });
    (port, sent)
}

/// Plays the script on one connection, and counts the bytes that were sent.
async fn run(script: Script, mut stream: TcpStream, sent: Arc<AtomicU64>) -> std::io::Result<()> {
    let mut request = [0; 4096];
    // The request is small, and its contents do not matter.
    let _ = stream.read(&mut request).await?;
    stream.write_all(script.head).await?;
    let Some(pause) = script.pause else { return std::future::pending().await };
    while !script.piece.is_empty() {
        stream.write_all(script.piece).await?;
        sent.fetch_add(script.piece.len() as u64, Relaxed);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(())
}

/// A receiver, and the outcome of an attempt to deliver to it.
struct Case {
    name: &'static str,
    script: Script,
    /// Status that the receiver sent, or the recorded error.
    outcome: Result<u16, &'static str>,
    /// Duration of the attempt in seconds.
    seconds: Range<u64>,
}

/// Returns a script: `head` once, then `piece` again and again, with pauses.
const fn script(head: &'static [u8], piece: &'static [u8], pause: Option<Duration>) -> Script {
    Script { head, piece, pause }
}

// Values of `Script::pause`, and a large piece.
const AT_ONCE: Option<Duration> = Some(Duration::ZERO);
const SLOWLY: Option<Duration> = Some(Duration::from_millis(200));
const MANY: &[u8] = &[b'x'; 65_536];

/// Returns all cases with the expected outcome and duration.
fn cases() -> Vec<Case> {
    let case = |name, script, outcome, seconds| Case { name, script, outcome, seconds };
    let gigabyte = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    // 400 is 1024 in hexadecimal digits: eight lines of 128 bytes.
    let chunk = b"400\r\n................................................................................................................................\
        ................................................................................................................................\
        ................................................................................................................................\
        ................................................................................................................................\
        ................................................................................................................................\
        ................................................................................................................................\
        ................................................................................................................................\
        ................................................................................................................................\r\n";
    vec![
        case("never answers", script(b"", b"", None), Err("late"), AT_THE_DEADLINE),
        case("sends its head slowly", script(b"HTTP/1.1 200 OK\r\nx-y: ", b"z", SLOWLY), Err("late"), AT_THE_DEADLINE),
        case("sends its body slowly", script(gigabyte, b"z", SLOWLY), Ok(200), AT_THE_DEADLINE),
        case("never ends its body", script(gigabyte, b"", None), Ok(200), AT_THE_DEADLINE),
        case("sends a gigabyte", script(gigabyte, MANY, AT_ONCE), Ok(200), SOON),
        case("sends chunks without end", script(chunked, chunk, AT_ONCE), Ok(200), SOON),
        case("sends a body until it closes", script(b"HTTP/1.1 500 No\r\n\r\n", MANY, AT_ONCE), Ok(500), SOON),
        case("sends a head without end", script(b"HTTP/1.1 200 OK\r\nx-y: ", MANY, AT_ONCE), Err("broken off"), SOON),
        case("sends headers without end", script(b"HTTP/1.1 200 OK\r\n", b"x-y: z\r\n", AT_ONCE), Err("broken off"), SOON),
        case("does not speak HTTP", script(b"SSH-2.0-OpenSSH_9.6\r\n", b"", None), Err("broken off"), SOON),
        case("closes at once", script(b"", b"", AT_ONCE), Err("broken off"), SOON),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn attempt_ends_in_time_and_reads_little_whatever_the_receiver_does() {
    let app = start().await;
    let attempts = cases().into_iter().map(async |case| {
        let (port, sent) = serve(case.script).await;
        let endpoint = add(&app, &format!("http://127.0.0.1:{port}/"), &[]).await.id;
        let attempt = endpoints(&app).test(&endpoint, OffsetDateTime::now_utc()).await.unwrap();
        (case, attempt, sent)
    });
    for (case, attempt, sent) in join_all(attempts).await {
        let Attempt { status, error, took, .. } = attempt;
        assert_eq!(status.ok_or(error.unwrap_or_default()), case.outcome, "{}", case.name);
        assert!(case.seconds.contains(&took.as_secs()), "{}: {took:?}", case.name);
        // The buffers of the connection take more bytes than the server reads.
        assert!(sent.load(Relaxed) < 32 * 1024 * 1024, "{}: {} bytes", case.name, sent.load(Relaxed));
    }
}
