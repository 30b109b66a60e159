//! Commands to mongod: makes it the only member of its replica set, and shuts it down.

use std::net::SocketAddr;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind;
use mongodb::options::{ClientOptions, ServerAddress};
use mongodb::{Client, Database};

use super::log::one_line;

/// Name of the replica set. It is stored in the data: another name means that the data is not Valet's.
pub(super) const NAME: &str = "valet";

/// Timeout of a command; the driver has no socket timeout of its own.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);
/// Server error `NotYetInitialized`.
const NOT_YET_INITIALIZED: i32 = 94;
/// Reason for a command without an answer in time.
const NO_ANSWER: &str = "it does not answer";

/// Returns the URI for clients.
pub(super) fn uri(address: SocketAddr) -> String {
    format!("mongodb://{address}/?directConnection=true")
}

/// Sends the shutdown command without waiting for the end: the answer is a broken connection.
pub(super) async fn shut_down(address: SocketAddr) {
    if let Ok(node) = Node::new(address) {
        let _ = node.run(doc! { "shutdown": 1, "force": true, "timeoutSecs": 0 }).await;
    }
}

/// The set's only member.
pub(super) struct Node {
    admin: Database,
    address: SocketAddr,
}

/// Result of a command: `Err` is one line with the reason, and a retry may succeed.
pub(super) type Answer<T> = Result<T, String>;

/// Result of [`Node::continue_setup`].
pub(super) enum SetupOutcome {
    /// mongod is a writable primary.
    Ready,
    /// Another process listens on the port, which it took before mongod.
    OtherProcess,
}

impl Node {
    /// Creates a client of the mongod at this address, without connecting.
    pub(super) fn new(address: SocketAddr) -> Answer<Self> {
        let host = ServerAddress::Tcp { host: address.ip().to_string(), port: Some(address.port()) };
        let options = ClientOptions::builder()
            .hosts(vec![host])
            .direct_connection(true)
            .connect_timeout(COMMAND_PATIENCE)
            .server_selection_timeout(COMMAND_PATIENCE)
            .build();
        let client = Client::with_options(options).map_err(|error| one_line(&error.to_string()))?;
        Ok(Self { admin: client.database("admin"), address })
    }

    /// Takes one step towards a writable primary whose configuration has its current address. Repeat it until `Ok`: loading the
    /// configuration, an election and the commands' effects take time, and each step continues from the current state.
    pub(super) async fn continue_setup(&self, pid: u32) -> Answer<SetupOutcome> {
        let status = self.run(doc! { "serverStatus": 1, "metrics": 0, "repl": 0, "wiredTiger": 0 }).await?;
        if status.get_i64("pid").ok() != Some(i64::from(pid)) {
            return Ok(SetupOutcome::OtherProcess);
        }
        let hello = self.run(doc! { "hello": 1 }).await?;
        let me = self.address.to_string();
        let writable = hello.get_bool("isWritablePrimary").unwrap_or_default();
        if writable && hello.get_str("me").ok() == Some(me.as_str()) {
            return Ok(SetupOutcome::Ready);
        }
        let member = doc! { "_id": 0, "host": &me };
        match self.config().await? {
            None => {
                let config = doc! { "_id": NAME, "members": [member] };
                self.run(doc! { "replSetInitiate": config }).await?;
            }
            Some(config) if hosts(&config) == [me.as_str()] => {
                return Err("it is not the primary yet".to_owned());
            }
            Some(mut config) => {
                // The previous run had another port. Without a primary, only `force` reconfigures a set.
                let version = config.get_i32("version").unwrap_or_default();
                config.insert("version", version.saturating_add(1));
                config.insert("members", vec![member]);
                self.run(doc! { "replSetReconfig": config, "force": true }).await?;
            }
        }
        Err("its replica set is being set up".to_owned())
    }

    /// Returns the replica set's configuration in the data; `None` in new data.
    async fn config(&self) -> Answer<Option<Document>> {
        let command = self.admin.run_command(doc! { "replSetGetConfig": 1 });
        match tokio::time::timeout(COMMAND_PATIENCE, command).await {
            Ok(Ok(answer)) => match answer.get_document("config") {
                Ok(config) => Ok(Some(config.clone())),
                Err(error) => Err(format!("replSetGetConfig: {error}")),
            },
            Ok(Err(error)) if code(&error) == Some(NOT_YET_INITIALIZED) => Ok(None),
            Ok(Err(error)) => Err(one_line(&error.to_string())),
            Err(_) => Err(NO_ANSWER.to_owned()),
        }
    }

    /// Runs a command on the database `admin`.
    async fn run(&self, command: Document) -> Answer<Document> {
        match tokio::time::timeout(COMMAND_PATIENCE, self.admin.run_command(command)).await {
            Ok(answer) => answer.map_err(|error| one_line(&error.to_string())),
            Err(_) => Err(NO_ANSWER.to_owned()),
        }
    }
}

/// Returns the addresses of a configuration's members.
fn hosts(config: &Document) -> Vec<&str> {
    let members = config.get_array("members").map(Vec::as_slice).unwrap_or_default();
    members.iter().filter_map(|member| member.as_document()?.get_str("host").ok()).collect()
}

/// Returns the code of an error that the server returned.
fn code(error: &mongodb::error::Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(error) => Some(error.code),
        _ => None,
    }
}
