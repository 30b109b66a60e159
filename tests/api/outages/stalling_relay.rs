//! A TCP relay that stops passing bytes: it accepts connections and sends nothing, like a firewall that drops packets, or a stopped
//! process.

use std::net::SocketAddr;

use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::app::TestApp;

/// A TCP relay that can stop passing bytes.
pub struct StallingRelay {
    address: SocketAddr,
    flow: watch::Sender<Flow>,
}

/// State of a relay.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Flow {
    /// Whether bytes pass.
    is_open: bool,
    /// Number of losses: connections that were opened before a loss never pass bytes again.
    losses: u32,
    /// Text at which the relay stops when a client sends it; empty for none.
    stops_at: &'static str,
}

impl StallingRelay {
    /// Starts a relay in front of this address.
    async fn before(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let flow = watch::Sender::new(Flow { is_open: true, losses: 0, stops_at: "" });
        let state = flow.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (state, target) = (state.clone(), target.clone());
                tokio::spawn(async move { relay(near, &target, state).await });
            }
        });
        Self { address, flow }
    }

    /// Starts a relay in front of MongoDB.
    pub async fn before_mongodb(app: &TestApp) -> Self {
        Self::before(mongod_of(app)).await
    }

    /// Starts a relay in front of the store.
    pub async fn before_s3(app: &TestApp) -> Self {
        let endpoint = app.config.s3.endpoint.as_deref().unwrap().to_owned();
        Self::before(endpoint.trim_start_matches("http://").to_owned()).await
    }

    /// Returns the database's connection string through the relay.
    pub fn uri(&self, app: &TestApp) -> String {
        app.config.mongo.uri.expose_secret().replace(&mongod_of(app), &self.address.to_string())
    }

    /// Returns the relay's address as an endpoint of S3.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops all bytes until the relay is resumed, which then passes them.
    pub fn stall(&self) {
        self.flow.send_modify(|flow| flow.is_open = false);
    }

    /// Stops all bytes, and permanently those of connections that were opened before [`StallingRelay::accept_again`], without
    /// closing any.
    pub fn drop_open_connections(&self) {
        self.flow.send_modify(|flow| *flow = Flow { is_open: false, losses: flow.losses + 1, ..*flow });
    }

    /// Ends [`StallingRelay::drop_open_connections`] for new connections.
    pub fn accept_again(&self) {
        self.flow.send_modify(|flow| *flow = Flow { is_open: true, losses: flow.losses + 1, ..*flow });
    }

    /// Stalls when a client sends this text.
    pub fn stall_at(&self, text: &'static str) {
        self.flow.send_modify(|flow| flow.stops_at = text);
    }

    /// Returns whether the relay has stopped passing bytes.
    pub fn is_stalled(&self) -> bool {
        !self.flow.borrow().is_open
    }

    /// Passes bytes again.
    pub fn resume(&self) {
        self.flow.send_modify(|flow| *flow = Flow { is_open: true, stops_at: "", ..*flow });
    }
}

/// Returns the address of the database.
fn mongod_of(app: &TestApp) -> String {
    let uri = app.config.mongo.uri.expose_secret();
    let hosts = uri.trim_start_matches("mongodb://").split(['/', '?']).next().unwrap();
    hosts.rsplit('@').next().unwrap().to_owned()
}

/// Sender of one direction of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Client,
    Target,
}

/// Relays a client's connection, `near`, in both directions.
async fn relay(near: TcpStream, target: &str, flow: watch::Sender<Flow>) {
    let losses = flow.borrow().losses;
    let Ok(far) = TcpStream::connect(target).await else { return };
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let (out, back) =
        (pump(near_read, far_write, &flow, losses, Sender::Client), pump(far_read, near_write, &flow, losses, Sender::Target));
    // The end of one direction ends both; a lost connection does not end.
    tokio::select! {
        () = out => {}
        () = back => {}
    }
}

/// Relays one direction of a connection while the flow is open.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    flow: &watch::Sender<Flow>,
    losses: u32,
    sender: Sender,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut state = flow.subscribe();
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let stops_at = flow.borrow().stops_at;
        let sent = &buffer[..read];
        if sender == Sender::Client
            && !stops_at.is_empty()
            && sent.windows(stops_at.len()).any(|window| window == stops_at.as_bytes())
        {
            flow.send_modify(|flow| flow.is_open = false);
        }
        let Ok(now) = state.wait_for(|flow| flow.is_open || flow.losses != losses).await.map(|flow| *flow) else { return };
        if now.losses != losses {
            std::future::pending::<()>().await;
        }
        if read == 0 || to.write_all(sent).await.is_err() {
            return;
        }
    }
}
