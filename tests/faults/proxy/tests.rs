//! Tests each fault from both ends of a connection.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{Fault, Proxy, RequestFilter};

/// Limit far above the duration of any step.
const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough to conclude that no bytes arrive.
const QUIET: Duration = Duration::from_millis(300);

/// Starts a server that echoes its input; returns the number of bytes too.
async fn echo() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, received) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
    let total = received.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let total = total.clone();
            tokio::spawn(async move {
                let mut piece = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut piece).await {
                    total.fetch_add(read as u64, SeqCst);
                    if stream.write_all(&piece[..read]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, received)
}

/// Connects to the proxy.
async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

/// Sends `text` and asserts that the echo comes back.
async fn assert_echoed(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
    stream.write_all(text).await?;
    let mut received = vec![0; text.len()];
    timeout(PATIENCE, stream.read_exact(&mut received)).await.expect("an answer or an end")?;
    assert_eq!(received, text);
    Ok(())
}

/// Waits until the condition is true; fails after [`PATIENCE`].
async fn wait_until(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn bytes_and_shutdowns_pass_in_both_directions() {
    let (upstream, received) = echo().await;
    let proxy = Proxy::start(upstream).await;
    let mut stream = connect(&proxy).await;
    assert_echoed(&mut stream, &[7; 4000]).await.unwrap();
    assert_echoed(&mut stream, b"more").await.unwrap();
    assert_eq!((received.load(SeqCst), proxy.counts().accepted(), proxy.counts().open()), (4004, 1, 1));
    stream.shutdown().await.unwrap();
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    wait_until(|| proxy.counts().open() == 0).await;
    assert_eq!(proxy.counts().cut(), 0);
}

#[tokio::test]
async fn latency_and_bandwidth_apply_in_each_direction() {
    let (upstream, _) = echo().await;
    let proxy = Proxy::start(upstream).await;
    let mut stream = connect(&proxy).await;
    proxy.set(Fault::Latency(Duration::from_millis(100)));
    let began = Instant::now();
    assert_echoed(&mut stream, b"slow").await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200));
    proxy.set(Fault::Bandwidth(10_000));
    let began = Instant::now();
    assert_echoed(&mut stream, &[1; 4000]).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
}

#[tokio::test]
async fn reset_applies_to_open_and_new_connections() {
    let (upstream, _) = echo().await;
    let proxy = Proxy::start(upstream).await;
    let mut open = connect(&proxy).await;
    assert_echoed(&mut open, b"hello").await.unwrap();
    proxy.set(Fault::Reset);
    let end = timeout(PATIENCE, open.read(&mut [0; 8])).await.unwrap();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut new = connect(&proxy).await;
    assert!(timeout(PATIENCE, new.read(&mut [0; 8])).await.unwrap().is_err());
    wait_until(|| proxy.counts().cut() == 2).await;
    proxy.heal();
    assert_echoed(&mut connect(&proxy).await, b"again").await.unwrap();
}

#[tokio::test]
async fn refused_connections_find_no_listener_and_the_port_stays_the_same() {
    let (upstream, _) = echo().await;
    let proxy = Proxy::start(upstream).await;
    let mut open = connect(&proxy).await;
    assert_echoed(&mut open, b"hello").await.unwrap();
    proxy.set(Fault::Refuse);
    assert!(timeout(PATIENCE, open.read(&mut [0; 8])).await.unwrap().is_err());
    let began = Instant::now();
    while !matches!(TcpStream::connect(proxy.address()).await, Err(error) if error.kind() == ErrorKind::ConnectionRefused) {
        assert!(began.elapsed() < PATIENCE);
    }
    proxy.heal();
    let began = Instant::now();
    let mut again = loop {
        match TcpStream::connect(proxy.address()).await {
            Ok(stream) => break stream,
            Err(_) => assert!(began.elapsed() < PATIENCE),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_echoed(&mut again, b"again").await.unwrap();
}

#[tokio::test]
async fn black_hole_accepts_and_stays_silent_until_healed() {
    let (upstream, received) = echo().await;
    let proxy = Proxy::start(upstream).await;
    let mut open = connect(&proxy).await;
    assert_echoed(&mut open, b"hello").await.unwrap();
    proxy.set(Fault::BlackHole);
    let mut new = connect(&proxy).await;
    for stream in [&mut open, &mut new] {
        stream.write_all(b"anybody").await.unwrap();
        assert!(timeout(QUIET, stream.read(&mut [0; 8])).await.is_err());
    }
    assert_eq!(received.load(SeqCst), 5, "nothing arrived");
    proxy.heal();
    for stream in [&mut open, &mut new] {
        let mut late = [0; 7];
        timeout(PATIENCE, stream.read_exact(&mut late)).await.unwrap().unwrap();
        assert_eq!(&late, b"anybody");
    }
}

#[tokio::test]
async fn black_hole_for_some_peers_does_not_affect_others() {
    let (upstream, _) = echo().await;
    let proxy = Proxy::start(upstream).await;
    let (mut member, mut client) = (connect(&proxy).await, connect(&proxy).await);
    assert_echoed(&mut member, b"I am a member").await.unwrap();
    assert_echoed(&mut client, b"I am a client").await.unwrap();
    proxy.set(Fault::BlackHoleFor(b"member"));
    member.write_all(b"anybody").await.unwrap();
    assert!(timeout(QUIET, member.read(&mut [0; 8])).await.is_err());
    assert_echoed(&mut client, b"anybody").await.unwrap();
    assert_echoed(&mut connect(&proxy).await, b"another client").await.unwrap();
    proxy.heal();
    let mut late = [0; 7];
    timeout(PATIENCE, member.read_exact(&mut late)).await.unwrap().unwrap();
}

#[tokio::test]
async fn cut_requests_are_executed_without_an_answer() {
    let (upstream, received) = echo().await;
    let proxy = Proxy::start(upstream).await;
    for (fault, expected) in [
        (Fault::CutAfterRequest(RequestFilter::containing(&[b"update"]).at_most(1)), 6 + 6 + 6),
        (Fault::CutBeforeAnswer(RequestFilter::containing(&[b"update"]).at_most(1)), 2 * (6 + 6 + 6)),
    ] {
        proxy.set(fault);
        let mut stream = connect(&proxy).await;
        assert_echoed(&mut stream, b"insert").await.unwrap();
        assert!(assert_echoed(&mut stream, b"update").await.is_err(), "cut");
        wait_until(|| received.load(SeqCst) >= expected - 6).await;
        assert_echoed(&mut connect(&proxy).await, b"update").await.unwrap();
        assert_eq!(received.load(SeqCst), expected);
    }
    assert_eq!(proxy.counts().cut(), 2);
    proxy.set(Fault::CutBeforeAnswer(RequestFilter::all()));
    assert!(assert_echoed(&mut connect(&proxy).await, b"any").await.is_err());
}

#[tokio::test]
async fn answer_is_truncated_after_the_given_bytes() {
    let (upstream, _) = echo().await;
    let proxy = Proxy::start(upstream).await;
    proxy.set(Fault::Truncate(10));
    let mut stream = connect(&proxy).await;
    stream.write_all(b"0123456789abcdef").await.unwrap();
    let mut received = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"0123456789");
}

#[tokio::test]
async fn dropping_the_proxy_closes_its_connections() {
    let (upstream, _) = echo().await;
    let proxy = Proxy::start(upstream).await;
    let mut stream = connect(&proxy).await;
    assert_echoed(&mut stream, b"hello").await.unwrap();
    let address = proxy.address();
    drop(proxy);
    assert!(matches!(timeout(PATIENCE, stream.read(&mut [0; 8])).await.unwrap(), Ok(0) | Err(_)));
    let began = Instant::now();
    while TcpStream::connect(address).await.is_ok() {
        assert!(began.elapsed() < PATIENCE);
    }
}
