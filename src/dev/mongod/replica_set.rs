//! What is said to mongod over the wire: make it the only member of its replica set, and shut it down.

use std::net::SocketAddr;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind;
use mongodb::options::{ClientOptions, ServerAddress};
use mongodb::{Client, Database};

use super::log::one_line;

/// The set's name. It is in the data: another one there means that the data is not ours.
pub(super) const NAME: &str = "valet";

/// The driver has no socket timeout of its own.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);
/// Server error `NotYetInitialized`.
const NOT_YET_INITIALIZED: i32 = 94;
const SILENT: &str = "it does not answer";

/// Where clients connect.
pub(super) fn uri(address: SocketAddr) -> String {
    format!("mongodb://{address}/?directConnection=true")
}

/// Asks for the end and does not wait for it: the answer is a broken connection.
pub(super) async fn shut_down(address: SocketAddr) {
    if let Ok(node) = Node::new(address) {
        let _ = node.run(doc! { "shutdown": 1, "force": true, "timeoutSecs": 0 }).await;
    }
}

/// The set's one member.
pub(super) struct Node {
    admin: Database,
    address: SocketAddr,
}

/// What became of a command: `Err` says in one line why not, and the next try may succeed.
pub(super) type Answer<T> = Result<T, String>;

/// How the settling ended.
pub(super) enum Settled {
    /// With a writable primary.
    Ready,
    /// Another process listens on the port: it was free only until someone took it.
    Stranger,
}

impl Node {
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

    /// One step towards a writable primary that knows itself by its address. To be repeated until `Ok`: loading the
    /// configuration, an election and the commands' effects take their time, and each step starts from what is.
    pub(super) async fn settle(&self, pid: u32) -> Answer<Settled> {
        let status = self.run(doc! { "serverStatus": 1, "metrics": 0, "repl": 0, "wiredTiger": 0 }).await?;
        if status.get_i64("pid").ok() != Some(i64::from(pid)) {
            return Ok(Settled::Stranger);
        }
        let hello = self.run(doc! { "hello": 1 }).await?;
        let me = self.address.to_string();
        let writable = hello.get_bool("isWritablePrimary").unwrap_or_default();
        if writable && hello.get_str("me").ok() == Some(me.as_str()) {
            return Ok(Settled::Ready);
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
                // Its port was another in the run before, and without a primary only force changes a set.
                let version = config.get_i32("version").unwrap_or_default();
                config.insert("version", version.saturating_add(1));
                config.insert("members", vec![member]);
                self.run(doc! { "replSetReconfig": config, "force": true }).await?;
            }
        }
        Err("its replica set is being set up".to_owned())
    }

    /// What the data says about the set; `None` in new data.
    async fn config(&self) -> Answer<Option<Document>> {
        let command = self.admin.run_command(doc! { "replSetGetConfig": 1 });
        match tokio::time::timeout(COMMAND_PATIENCE, command).await {
            Ok(Ok(answer)) => match answer.get_document("config") {
                Ok(config) => Ok(Some(config.clone())),
                Err(error) => Err(format!("replSetGetConfig: {error}")),
            },
            Ok(Err(error)) if code(&error) == Some(NOT_YET_INITIALIZED) => Ok(None),
            Ok(Err(error)) => Err(one_line(&error.to_string())),
            Err(_) => Err(SILENT.to_owned()),
        }
    }

    async fn run(&self, command: Document) -> Answer<Document> {
        match tokio::time::timeout(COMMAND_PATIENCE, self.admin.run_command(command)).await {
            Ok(answer) => answer.map_err(|error| one_line(&error.to_string())),
            Err(_) => Err(SILENT.to_owned()),
        }
    }
}

fn hosts(config: &Document) -> Vec<&str> {
    let members = config.get_array("members").map(Vec::as_slice).unwrap_or_default();
    members.iter().filter_map(|member| member.as_document()?.get_str("host").ok()).collect()
}

fn code(error: &mongodb::error::Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(error) => Some(error.code),
        _ => None,
    }
}
