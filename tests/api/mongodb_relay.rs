//! A relay in front of MongoDB that reads and changes messages.

use std::sync::Arc;

use mongodb::bson::Document;
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::app::TestApp;

/// A function that is called with each message, without the four bytes of its length.
pub type Tap = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Starts a second server whose requests to MongoDB, and the replies to them, pass through these functions.
pub async fn start_server_behind_relay(app: &TestApp, requests: Tap, replies: Tap) -> TestApp {
    let uri = app.config.mongo.uri.expose_secret();
    let address = uri.trim_start_matches("mongodb://").split(['/', ',', '?']).next().unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxied = format!("mongodb://{}/?directConnection=true", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&address).await.unwrap();
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::spawn(pass(from_client, to_server, requests.clone()));
            tokio::spawn(pass(from_server, to_client, replies.clone()));
        }
    });
    TestApp::start_second_server(app, |config| config.mongo.uri = proxied.into()).await
}

/// Returns the command of a request: after the rest of the header (12 bytes) and the flags (4), a section of kind 0 is the
/// command (OP_MSG of MongoDB's wire protocol).
pub fn command(message: &[u8]) -> Option<Document> {
    let is_command = message.get(8..12)? == 2013_i32.to_le_bytes() && message.get(16) == Some(&0);
    is_command.then(|| Document::from_reader(&message[17..]).unwrap())
}

/// Passes messages on after `tap` has changed them. A message begins with its length, these four bytes included (MsgHeader of
/// MongoDB's wire protocol).
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, tap: Tap) {
    while let Ok(length) = from.read_u32_le().await {
        let mut message = vec![0; length as usize - 4];
        if from.read_exact(&mut message).await.is_err() {
            return;
        }
        tap(&mut message);
        if to.write_all(&[&length.to_le_bytes()[..], &message].concat()).await.is_err() {
            return;
        }
    }
}
