//! A TCP proxy on loopback that does to connections what networks do, switched while it runs.
//!
//! One upstream each. It knows no protocol: what HTTP servers do wrong is in `s3_faults`.

mod pump;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use self::pump::End;

/// What happens to connections, those that are open and new ones alike.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing: bytes pass.
    None,
    /// Each piece waits so long, in each direction.
    Latency(Duration),
    /// So many bytes a second pass, in each direction.
    Bandwidth(u64),
    /// RST: open connections at once, new ones when they are accepted.
    Reset,
    /// Nobody listens, and what is open is reset.
    Refuse,
    /// Connections are accepted, and nothing that is sent arrives anywhere.
    BlackHole,
    /// The same for connections whose first bytes contain these: some peers are cut off, and others are not.
    BlackHoleFor(&'static [u8]),
    /// What is asked goes through, and the connection is cut at once; the upstream goes on with it.
    CutAfterRequest(Which),
    /// The connection is cut when the answer begins: what was asked has been done, and nobody is told.
    CutBeforeAnswer(Which),
    /// The connection is cut after so many more bytes of answers.
    Truncate(u64),
}

/// Which requests a cut is for.
#[derive(Debug, Clone)]
pub struct Which {
    /// Those that contain any of these.
    holding: &'static [&'static [u8]],
    left: Arc<AtomicU64>,
}

impl Which {
    /// All requests.
    pub fn all() -> Self {
        Self::holding(&[b""])
    }

    /// Those that contain any of these.
    pub fn holding(holding: &'static [&'static [u8]]) -> Self {
        Self { holding, left: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Only so many; later ones pass.
    pub fn at_most(self, count: u64) -> Self {
        self.left.store(count, SeqCst);
        self
    }

    /// Whether this request is one, which then counts.
    fn takes(&self, request: &[u8]) -> bool {
        self.holding.iter().any(|part| contains(request, part))
            && self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

/// What happened so far.
#[derive(Debug, Default)]
pub struct Counts {
    accepted: AtomicU64,
    open: AtomicU64,
    cut: AtomicU64,
}

impl Counts {
    /// Connections that were made.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(SeqCst)
    }

    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        self.open.load(SeqCst)
    }

    /// Connections that a fault ended.
    pub fn cut(&self) -> u64 {
        self.cut.load(SeqCst)
    }
}

/// A running proxy; it ends when dropped, and its connections with it.
pub struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    counts: Arc<Counts>,
    running: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.running.abort();
        // The connections' tasks see that the sender is gone.
    }
}

impl Proxy {
    /// In front of `upstream`, on a free port of 127.0.0.1.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (fault, faults) = watch::channel(Fault::None);
        let counts = Arc::new(Counts::default());
        let running = tokio::spawn(accept(listener, upstream, faults, counts.clone()));
        Self { address, fault, counts, running }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// No fault any more.
    pub fn heal(&self) {
        self.set(Fault::None);
    }

    /// What happened so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, mut faults: watch::Receiver<Fault>, counts: Arc<Counts>) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    loop {
        let refusing = matches!(*faults.borrow_and_update(), Fault::Refuse);
        if refusing {
            listener = None;
        } else if listener.is_none() {
            listener = Some(listen_again(address).await);
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accepted => {
                let Ok((client, _)) = accepted else { continue };
                counts.accepted.fetch_add(1, SeqCst);
                let (faults, counts) = (faults.clone(), counts.clone());
                tokio::spawn(async move {
                    counts.open.fetch_add(1, SeqCst);
                    if connection(client, upstream, faults).await == End::Cut {
                        counts.cut.fetch_add(1, SeqCst);
                    }
                    counts.open.fetch_sub(1, SeqCst);
                });
            }
            changed = faults.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// The same port: whoever connects knows no other.
async fn listen_again(address: SocketAddr) -> TcpListener {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        if socket.bind(address).is_ok()
            && let Ok(listener) = socket.listen(1024)
        {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn connection(mut client: TcpStream, upstream: SocketAddr, mut faults: watch::Receiver<Fault>) -> End {
    let _ = client.set_nodelay(true);
    let resets = |fault: &Fault| matches!(fault, Fault::Reset | Fault::Refuse);
    let mut seen = faults.clone();
    let end = tokio::select! {
        // When the proxy is gone, `wait_for` fails: that ends the connection, too.
        _ = seen.wait_for(resets) => End::Cut,
        end = async {
            if faults.wait_for(|fault| !matches!(fault, Fault::BlackHole)).await.is_err() {
                return End::Cut;
            }
            match TcpStream::connect(upstream).await {
                Ok(server) => {
                    let _ = server.set_nodelay(true);
                    pump::carry(&mut client, server, faults).await
                }
                Err(_) => End::Cut,
            }
        } => end,
    };
    if end == End::Cut {
        let _ = client.set_zero_linger();
    }
    end
}
