//! Two thousand slow clients on a server process: the latency of another user's gallery.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::{
    login_flood::{IDLE_REQUESTS, Server, p99},
    *,
};
use crate::hostile_clients::{
    memory,
    slow_clients::{KINDS, SLOW},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "compares times: needs an idle machine"]
async fn f24_two_thousand_slow_clients_do_not_slow_galleries() {
    let app = TestApp::start().await;
    let server = Server::start(&app).await;
    let idle = p99(server.owner(IDLE_REQUESTS).done().await);
    let before = memory(server.process.id(), "VmRSS");
    let (open, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = Vec::new();
    for at in 0..SLOW * KINDS.len() {
        let (base, open, stop) = (server.client.base.clone(), open.clone(), stop.clone());
        // A client that is cut off connects again.
        clients.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                KINDS[at % KINDS.len()].run(&base, &open).await;
            }
        }));
        // The clients connect in groups of a hundred.
        if at % 100 == 99 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    while open.load(Ordering::Relaxed) < clients.len() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let owner = server.owner(usize::MAX);
    // 25 s: the server cuts off the first clients after about 10 to 15 s, and they connect again.
    tokio::time::sleep(Duration::from_secs(25)).await;
    let beside = owner.stop().await;
    stop.store(true, Ordering::Relaxed);
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    let (answers, beside) = (beside.len(), p99(beside));
    let peak = memory(server.process.id(), "VmHWM");
    println!(
        "gallery p99: idle {idle:?} of {IDLE_REQUESTS}, beside {} slow clients {beside:?} of {answers}; {} connected; \
         memory {:.1} MiB, before {:.1}",
        SLOW * KINDS.len(),
        open.load(Ordering::Relaxed),
        peak as f64 / 1024.0,
        before as f64 / 1024.0
    );
    assert!(beside <= 2 * idle, "the gallery takes at most twice as long");
}
