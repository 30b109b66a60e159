//! Benchmarks with a store that answers after 30 ms, by a proxy in front of the local S3: confirms, and the sweeper.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use valet::state::AppState;

use super::{
    RUNS, batch,
    client::Connection,
    data::User,
    median,
    report::{Bound, Report},
    servers::{Dependencies, Server},
};

/// Time by which the proxy delays responses of the store.
const DELAY: Duration = Duration::from_millis(30);
/// Number of confirms in one run.
const CONFIRMS: usize = 20;
/// Number of images that the sweeper confirms.
const SWEPT: usize = 400;

/// Starts a proxy that delays responses by [`DELAY`]; returns its address.
pub async fn start_delaying_proxy(s3: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(relay(client, s3));
        }
    });
    address
}

/// Relays one connection.
async fn relay(client: TcpStream, s3: SocketAddr) -> std::io::Result<()> {
    let server = TcpStream::connect(s3).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
    let requests = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    // The delay of each part begins with its own arrival: those of a head and a body, which arrive apart, overlap.
    let (sender, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let receive = async move {
        loop {
            let mut part = Vec::with_capacity(64 * 1024);
            if from_server.read_buf(&mut part).await? == 0 || sender.send((Instant::now() + DELAY, part)).is_err() {
                return Ok(());
            }
        }
    };
    let deliver = async {
        while let Some((at, part)) = arrived.recv().await {
            tokio::time::sleep_until(at.into()).await;
            to_client.write_all(&part).await?;
        }
        to_client.shutdown().await
    };
    tokio::try_join!(requests, receive, deliver).map(drop)
}

/// Measures confirms and sweeps, in a database that contains no other uploads.
pub async fn measure(report: &mut Report) {
    let dependencies = Dependencies::start().await;
    let proxy = start_delaying_proxy(dependencies.s3).await;
    // Clients reach the store directly.
    let store = [("S3_ENDPOINT", format!("http://{proxy}")), ("S3_PUBLIC_ENDPOINT", format!("http://{}", dependencies.s3))];
    let slow = Server::valet_with(&dependencies, store).await;
    measure_confirms(report, &dependencies, &slow).await;
    measure_sweep(report, &dependencies, &slow, proxy).await;
    drop(slow);
    dependencies.stop().await;
}

/// Measures the time by which a confirm with the slow store exceeds one with the fast store, as multiples of [`DELAY`].
async fn measure_confirms(report: &mut Report, dependencies: &Dependencies, slow: &Server) {
    let fast = Server::valet(dependencies).await;
    let (mut fast_times, mut slow_times) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        fast_times.push(mean_confirm_time(&fast, dependencies.s3).await);
        slow_times.push(mean_confirm_time(slow, dependencies.s3).await);
    }
    let excess = median(fast_times.iter().zip(&slow_times).map(|(fast, slow)| slow - fast).collect());
    println!("confirm: {:.1} ms, with a store that answers after 30 ms {:.1} ms more", median(fast_times) * 1e3, excess * 1e3);
    report.ratio("a confirm's wait for a slow store, to the store's delay", excess / DELAY.as_secs_f64(), Bound::AtMost(1.17));
}

/// Measures the number of images that a sweep confirms in a second.
async fn measure_sweep(report: &mut Report, dependencies: &Dependencies, slow: &Server, proxy: SocketAddr) {
    let user = User::sign_up(slow.address).await;
    batch::send_uploads(slow, dependencies.s3, &user, SWEPT).await;
    let mut config = dependencies.config();
    config.s3.endpoint = Some(format!("http://{proxy}").parse().unwrap());
    let app = AppState::connect(&config).await.unwrap();
    // In two days every upload is due, so the sweeper looks for its object.
    let later = OffsetDateTime::now_utc() + Duration::from_secs(2 * 24 * 60 * 60);
    let began = Instant::now();
    while app.valet.sweeper.sweep_once(later).await.unwrap().may_have_more {}
    let rate = SWEPT as f64 / began.elapsed().as_secs_f64();
    println!("swept: {rate:.0} images a second");
    report.ratio("images swept in 30 ms, the delay of one S3 response", rate * DELAY.as_secs_f64(), Bound::AtLeast(4.5));
}

/// Returns the mean time of a confirm in seconds.
async fn mean_confirm_time(valet: &Server, s3: SocketAddr) -> f64 {
    let user = User::sign_up(valet.address).await;
    let ids = batch::send_uploads(valet, s3, &user, CONFIRMS).await;
    let mut api = Connection::open(valet.address).await;
    let began = Instant::now();
    for id in &ids {
        api.expect(&user.request("POST", &format!("/api/images/{id}/confirm"), None), 200).await;
    }
    began.elapsed().as_secs_f64() / ids.len() as f64
}
