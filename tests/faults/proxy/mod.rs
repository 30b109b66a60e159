//! A TCP proxy on loopback that injects network faults, switched while it runs.
//!
//! One proxy has one upstream. It does not interpret the protocol; faults of HTTP servers are in `s3_faults`.

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

use self::pump::ConnectionEnd;

/// Fault that applies to open and to new connections.
#[derive(Debug, Clone)]
pub enum Fault {
    /// No fault: bytes pass.
    None,
    /// Delays each piece that is read, in each direction.
    Latency(Duration),
    /// Limits the bytes per second, in each direction.
    Bandwidth(u64),
    /// Resets open connections at once, and new ones when they are accepted.
    Reset,
    /// Stops listening and resets open connections.
    Refuse,
    /// Accepts connections and discards everything that is sent.
    BlackHole,
    /// Applies [`Fault::BlackHole`] to connections whose first bytes contain these, and to no others.
    BlackHoleFor(&'static [u8]),
    /// Passes the request on and cuts the connection at once; the upstream completes the request.
    CutAfterRequest(RequestFilter),
    /// Cuts the connection when the answer begins: the request was executed, but the client gets no answer.
    CutBeforeAnswer(RequestFilter),
    /// Cuts the connection after so many more bytes of answers.
    Truncate(u64),
}

/// Requests that a cut applies to.
#[derive(Debug, Clone)]
pub struct RequestFilter {
    /// Selects requests that contain any of these; an empty entry selects all.
    parts: &'static [&'static [u8]],
    /// Number of cuts that are left.
    left: Arc<AtomicU64>,
}

impl RequestFilter {
    /// Selects all requests.
    pub fn all() -> Self {
        Self::containing(&[b""])
    }

    /// Selects requests that contain any of these bytes.
    pub fn containing(parts: &'static [&'static [u8]]) -> Self {
        Self { parts, left: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Limits the number of cuts; later requests pass.
    pub fn at_most(self, count: u64) -> Self {
        self.left.store(count, SeqCst);
        self
    }

    /// Returns whether the cut applies to this request, and counts it.
    fn applies_to(&self, request: &[u8]) -> bool {
        self.parts.iter().any(|part| contains(request, part))
            && self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

/// Returns whether `bytes` contain `part`; all contain the empty part.
fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

/// Counters of a proxy.
#[derive(Debug, Default)]
pub struct Counts {
    accepted: AtomicU64,
    open: AtomicU64,
    cut: AtomicU64,
}

impl Counts {
    /// Returns the number of accepted connections.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(SeqCst)
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> u64 {
        self.open.load(SeqCst)
    }

    /// Returns the number of connections that a fault ended.
    pub fn cut(&self) -> u64 {
        self.cut.load(SeqCst)
    }
}

/// A running proxy; dropping it closes its connections.
pub struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    counts: Arc<Counts>,
    running: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.running.abort();
        // Dropping the sender ends the connections' tasks.
    }
}

impl Proxy {
    /// Starts a proxy for `upstream` on a free port of 127.0.0.1.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (fault, faults) = watch::channel(Fault::None);
        let counts = Arc::new(Counts::default());
        let running = tokio::spawn(accept(listener, upstream, faults, counts.clone()));
        Self { address, fault, counts, running }
    }

    /// Returns the address that the proxy listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the current fault.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Removes the fault.
    pub fn heal(&self) {
        self.set(Fault::None);
    }

    /// Returns the counters.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Accepts connections until the proxy is dropped, and relays each in a task of its own. Closes the listener while connections are
/// refused.
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
                    if relay_connection(client, upstream, faults).await == ConnectionEnd::Cut {
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

/// Listens again on the same port, which clients have in their configuration.
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

/// Relays one connection, with the current fault; returns the reason for its end.
async fn relay_connection(mut client: TcpStream, upstream: SocketAddr, mut faults: watch::Receiver<Fault>) -> ConnectionEnd {
    let _ = client.set_nodelay(true);
    let resets = |fault: &Fault| matches!(fault, Fault::Reset | Fault::Refuse);
    let mut faults_of_connection = faults.clone();
    let end = tokio::select! {
        // When the proxy is dropped, `wait_for` fails, which ends the connection too.
        _ = faults_of_connection.wait_for(resets) => ConnectionEnd::Cut,
        end = async {
            if faults.wait_for(|fault| !matches!(fault, Fault::BlackHole)).await.is_err() {
                return ConnectionEnd::Cut;
            }
            match TcpStream::connect(upstream).await {
                Ok(server) => {
                    let _ = server.set_nodelay(true);
                    pump::relay(&mut client, server, faults).await
                }
                Err(_) => ConnectionEnd::Cut,
            }
        } => end,
    };
    if end == ConnectionEnd::Cut {
        let _ = client.set_zero_linger();
    }
    end
}
