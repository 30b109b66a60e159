//! `valet dev`: runs everything on one machine without configuration. Servers that the environment names are used instead of
//! local ones.

use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use secrecy::{ExposeSecret, SecretString};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    environment::{self, write_private},
    mongod::{Mongod, MongodError, MongodOptions},
    s3::{LocalS3, LocalS3Error},
};
use crate::{
    config::{Config, Lookup, Problems},
    server,
    signer::Credentials,
    state::{AppState, ConnectError},
};

/// Access key id of the local S3.
const ACCESS_KEY: &str = "valet-dev";
/// Networks of webhook endpoints on this machine.
const LOOPBACK: &str = "127.0.0.0/8,::1/128";
/// Bytes of a secret that is created for the stack.
const SECRET_BYTES: usize = 32;

/// Flags of `valet dev`.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// Address of the API.
    pub bind: SocketAddr,
    /// Address of the local S3.
    pub s3_bind: SocketAddr,
    /// Folder for all data.
    pub data_dir: PathBuf,
    /// Listen on all interfaces and sign for the machine's address in the local network.
    pub lan: bool,
    /// Make the database the owner of the bucket, even if one of them was paired with another.
    pub join: bool,
}

/// Reason why the local stack does not run. Each message is one line with a remedy.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A port is taken, or the address is not this machine's.
    #[error("cannot listen on {address}: {source}; choose another with {flag} ADDR:PORT")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The flag that changes it.
        flag: &'static str,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The data folder cannot be used.
    #[error("cannot write to the data folder {}: {source}; choose another with --data-dir DIR", path.display())]
    DataDir {
        /// The folder or a file in it.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// `--lan` without a network.
    #[error("--lan: this machine has no address in a local network; connect it to one, or leave --lan out")]
    NoLan,
    /// Error of the database.
    #[error(transparent)]
    Mongod(#[from] MongodError),
    /// Error of the object store.
    #[error(transparent)]
    S3(#[from] LocalS3Error),
    /// An invalid setting in the environment.
    #[error(transparent)]
    Config(#[from] Problems),
    /// A server that the environment names, or a local one, does not answer.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Bucket and database do not belong together: the environment now names one of them, or a part of the data was removed.
    #[error("{0}; for the parts of `valet dev`: `valet dev --join`, or choose another folder with --data-dir DIR")]
    Pair(#[source] ConnectError),
    /// The server ended with an error.
    #[error("the server failed: {0}")]
    Serve(#[source] io::Error),
    /// mongod was stopped by another process, or it crashed.
    #[error("mongod ended while the server ran; its log is in the data folder, under mongodb")]
    MongodLost,
    /// The operating system provides no random bytes.
    #[error("the system's source of random bytes failed")]
    NoRandomness,
}

/// Connects to database and bucket, after joining them if the options say so.
async fn connect(config: &Config, options: &StackOptions) -> Result<AppState, DevError> {
    if options.join {
        AppState::open(config).await?.join_pair().await?;
    }
    match AppState::connect_pair(config).await {
        Err(error) if error.is_mismatch() => Err(DevError::Pair(error)),
        app => Ok(app?),
    }
}

/// The running parts of the stack. Dropping it kills mongod; [`Stack::run`] ends all parts in order.
pub struct Stack {
    listener: TcpListener,
    app: AppState,
    config: Config,
    s3: Option<(JoinHandle<()>, CancellationToken)>,
    mongod: Option<Mongod>,
    banner: String,
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("mongod", &self.mongod).finish_non_exhaustive()
    }
}

impl Stack {
    /// Starts the servers that the environment does not name, and connects.
    ///
    /// # Errors
    ///
    /// Returns [`DevError`]; no process is left running.
    pub async fn start(options: &StackOptions, env: Lookup<'_>) -> Result<Self, DevError> {
        let in_data = |name: &str| options.data_dir.join(name);
        let not_writable = |source| DevError::DataDir { path: options.data_dir.clone(), source };
        private_dir(&options.data_dir).map_err(not_writable)?;
        let jwt_secret = kept_secret(&in_data("jwt-secret"))?;
        let s3_secret = kept_secret(&in_data("s3-secret"))?;
        let webhook_secret = kept_secret(&in_data("webhook-secret"))?;
        let lan = if options.lan { Some(lan_address()?) } else { None };
        // Before mongod starts, because a taken port is noticed at once.
        let listener = listen(listen_address(lan, options.bind), "--bind").await?;
        let api = reachable(&listener, lan)?;
        let is_set = |name: &str| env(name).is_some_and(|value| !value.is_empty());

        let (mut s3, mut s3_endpoint) = (None, None);
        if !is_set("S3_ENDPOINT") {
            let listener = listen(listen_address(lan, options.s3_bind), "--s3-bind").await?;
            s3_endpoint = Some(format!("http://{}", reachable(&listener, lan)?));
            s3 = Some(listener);
        }
        let mongod =
            if is_set("MONGODB_URI") { None } else { Some(Mongod::start(MongodOptions::new(in_data("mongodb"))).await?) };

        let uri = mongod.as_ref().map(Mongod::uri);
        // AWS settings in the developer's shell are meant for AWS, not for the local S3.
        let is_of_aws = |name: &str| s3.is_some() && name.starts_with("AWS_");
        let setting = |name: &str| {
            env(name).filter(|value| !value.is_empty() && !is_of_aws(name)).or_else(|| match name {
                "BIND" => Some(options.bind.to_string()),
                "MONGODB_URI" => uri.clone(),
                "S3_BUCKET" => Some("valet".to_owned()),
                "S3_ENDPOINT" => s3_endpoint.clone(),
                "S3_FORCE_PATH_STYLE" => Some("true".to_owned()),
                "JWT_SECRET" => Some(jwt_secret.expose_secret().to_owned()),
                "WEBHOOK_SECRET" => Some(webhook_secret.expose_secret().to_owned()),
                "WEBHOOK_ALLOW" => Some(LOOPBACK.to_owned()),
                "AWS_ACCESS_KEY_ID" if s3.is_some() => Some(ACCESS_KEY.to_owned()),
                "AWS_SECRET_ACCESS_KEY" if s3.is_some() => Some(s3_secret.expose_secret().to_owned()),
                "PREVIEWS" if cfg!(feature = "worker") && !is_set("IMGPROXY_URL") => Some("worker".to_owned()),
                "LOG_FORMAT" => Some("text".to_owned()),
                _ => None,
            })
        };
        let mut config = Config::read(&setting)?;
        environment::write(&in_data(environment::FILE), &setting).map_err(not_writable)?;
        config.cors.loopback = true;
        if lan.is_some() {
            config.cors.exact.push(format!("http://{api}"));
        }
        let s3 = match s3 {
            Some(listener) => Some(serve_configured_s3(listener, in_data("s3"), s3_secret, &mut config).await?),
            None => None,
        };
        let app = connect(&config, options).await?;
        let banner = banner(api, &config, s3.is_some(), mongod.as_ref(), &options.data_dir);
        Ok(Self { listener, app, config, s3, mongod, banner })
    }

    /// Returns the text that lists all addresses.
    #[must_use]
    pub fn banner(&self) -> &str {
        &self.banner
    }

    /// Serves until `stop`, then ends every part: the server first, then its dependencies.
    ///
    /// # Errors
    ///
    /// If the server failed, if mongod ended before the server, or if mongod cannot be ended.
    pub async fn run(self, stop: CancellationToken) -> Result<(), DevError> {
        let Self { listener, app, config, s3, mut mongod, .. } = self;
        let previews = make_previews(&app, &config, &stop).map_err(DevError::Serve)?;
        let mut serving = std::pin::pin!(server::serve(listener, app, &config, stop.clone()));
        let ended = async {
            match &mut mongod {
                Some(mongod) => mongod.ended().await,
                None => std::future::pending().await,
            }
        };
        let (served, lost) = tokio::select! {
            served = &mut serving => (served, false),
            () = ended => {
                tracing::error!("mongod has ended; stopping");
                stop.cancel();
                (serving.await, true)
            }
        };
        if let Err(error) = previews.await {
            tracing::error!(%error, "the worker panicked");
        }
        if let Some((task, stop)) = s3 {
            stop.cancel();
            if let Err(error) = task.await {
                tracing::error!(%error, "the local S3 panicked");
            }
        }
        if lost {
            return Err(DevError::MongodLost);
        }
        if let Some(mongod) = mongod {
            mongod.stop().await?;
        }
        served.map_err(DevError::Serve)
    }
}

/// Starts the worker of this process, if workers make the previews. Its child processes decode the images.
#[cfg(feature = "worker")]
fn make_previews(app: &AppState, config: &Config, stop: &CancellationToken) -> io::Result<JoinHandle<()>> {
    if config.previews.worker().is_none() {
        return Ok(tokio::spawn(async {}));
    }
    let (renderer, valet, stop) = (app.valet.preview_worker.renderer()?, app.valet.clone(), stop.clone());
    Ok(tokio::spawn(async move { valet.preview_worker.run_until(&renderer, stop).await }))
}

/// Starts no worker.
#[cfg(not(feature = "worker"))]
fn make_previews(_: &AppState, _: &Config, _: &CancellationToken) -> io::Result<JoinHandle<()>> {
    Ok(tokio::spawn(async {}))
}

/// Sets the keys of the local S3 in the configuration, and serves it.
async fn serve_configured_s3(
    listener: TcpListener,
    root: PathBuf,
    secret_key: SecretString,
    config: &mut Config,
) -> Result<(JoinHandle<()>, CancellationToken), DevError> {
    config.s3.credentials = Some(Credentials {
        access_key_id: ACCESS_KEY.to_owned(),
        secret_access_key: secret_key.clone(),
        session_token: None,
        expires_at: None,
    });
    serve_s3(listener, root, secret_key, config).await
}

/// Serves the local S3 with the bucket, region and origins of the configuration. Returns its task, and the token that stops it.
async fn serve_s3(
    listener: TcpListener,
    root: PathBuf,
    secret_key: SecretString,
    config: &Config,
) -> Result<(JoinHandle<()>, CancellationToken), DevError> {
    let (access_key, cors) = (ACCESS_KEY.to_owned(), config.cors.clone());
    let region = config.s3.region.clone().unwrap_or_else(|| "us-east-1".to_owned());
    let options = super::s3::LocalS3Options { root, access_key, secret_key, region, cors };
    // Reads every object's metadata, which would block the runtime's threads.
    let opened = tokio::task::spawn_blocking(move || LocalS3::open(options)).await;
    let local = opened.map_err(|error| DevError::Serve(io::Error::other(error)))??;
    local.create_bucket(&config.s3.bucket)?;
    let stop = CancellationToken::new();
    Ok((tokio::spawn(local.serve(listener, stop.clone())), stop))
}

/// Listens on an address; `flag` is the one that changes it.
async fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, DevError> {
    TcpListener::bind(address).await.map_err(|source| DevError::Bind { address, flag, source })
}

/// Returns the address to listen on: with `--lan`, all interfaces instead of the loopback interface.
fn listen_address(lan: Option<IpAddr>, address: SocketAddr) -> SocketAddr {
    match lan {
        Some(_) if address.ip().is_loopback() => SocketAddr::new(IpAddr::from([0, 0, 0, 0]), address.port()),
        _ => address,
    }
}

/// Returns the address to print: clients cannot connect to a wildcard.
fn reachable(listener: &TcpListener, lan: Option<IpAddr>) -> Result<SocketAddr, DevError> {
    let address = listener.local_addr().map_err(DevError::Serve)?;
    let ip = if address.ip().is_unspecified() { lan.unwrap_or(IpAddr::from([127, 0, 0, 1])) } else { address.ip() };
    Ok(SocketAddr::new(ip, address.port()))
}

/// Returns the address from which this machine reaches other networks. Connecting a UDP socket sends nothing.
fn lan_address() -> Result<IpAddr, DevError> {
    let route = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        // TEST-NET-1 (RFC 5737): routed like any other network, and unused.
        socket.connect(("192.0.2.1", 9))?;
        Ok(socket.local_addr()?.ip())
    };
    route().ok().filter(|ip| !ip.is_loopback() && !ip.is_unspecified()).ok_or(DevError::NoLan)
}

/// Creates a folder that only its owner can read, because images are private.
fn private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Returns the secret in a file, as hexadecimal digits. Creates it at the first run; only its owner can read the file.
fn kept_secret(path: &Path) -> Result<SecretString, DevError> {
    let failed = |source| DevError::DataDir { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= 2 * SECRET_BYTES => return Ok(text.trim().into()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut bytes = [0; SECRET_BYTES];
    rand::fill(&mut bytes).map_err(|_| DevError::NoRandomness)?;
    let text = hex::encode(bytes);
    write_private(path, &text).map_err(failed)?;
    Ok(text.into())
}

/// Returns the text that lists all addresses.
fn banner(api: SocketAddr, config: &Config, local_s3: bool, mongod: Option<&Mongod>, data_dir: &Path) -> String {
    let s3 = config.s3.public_endpoint.as_deref().unwrap_or("AWS");
    let s3_kind = if local_s3 { "in this process" } else { "from S3_ENDPOINT" };
    let mongo = match mongod {
        Some(mongod) => format!("mongod child {}, {}", mongod.pid(), mongod.uri()),
        None => "from MONGODB_URI".to_owned(),
    };
    let docs = if config.switches.docs { format!("http://{api}/docs") } else { "off".to_owned() };
    format!(
        "Valet is running, for development:\n  Gallery     http://{api}/\n  API         http://{api}/api\n  Swagger UI  {docs}\n  \
         S3          {s3} (bucket {}, {s3_kind})\n  MongoDB     {mongo}\n  Data        {}\n  Commands    (. {} && valet key list)\nCtrl-C stops all of it.",
        config.s3.bucket,
        data_dir.display(),
        data_dir.join(environment::FILE).display()
    )
}
