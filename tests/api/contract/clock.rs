//! D8: sweeping goes by the database's clock. A proxy in front of MongoDB shifts the time that the server is told.

use mongodb::bson::{DateTime, Document, doc};
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::app::{TestApp, unique_png};

const HOUR: i64 = 3_600_000;

/// The URI of a MongoDB whose clock is `shift` milliseconds off.
async fn shifted(uri: &str, shift: i64) -> String {
    let address = uri.trim_start_matches("mongodb://").split(['/', ',', '?']).next().unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxied = format!("mongodb://{}/?directConnection=true", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&address).await.unwrap();
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                // Messages begin with their length, these four bytes included (the wire protocol's MsgHeader).
                while let Ok(length) = from_server.read_u32_le().await {
                    let mut message = vec![0; length as usize - 4];
                    if from_server.read_exact(&mut message).await.is_err() {
                        break;
                    }
                    shift_clock(&mut message, shift);
                    let whole = [&length.to_le_bytes()[..], &message].concat();
                    if to_client.write_all(&whole).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    proxied
}

/// `localTime` of a `hello` is a BSON date: type 9, the name, eight bytes of milliseconds.
fn shift_clock(message: &mut [u8], shift: i64) {
    const FIELD: &[u8] = b"\x09localTime\0";
    if let Some(at) = message.windows(FIELD.len()).position(|window| window == FIELD) {
        let at = at + FIELD.len();
        let millis = i64::from_le_bytes(message[at..at + 8].try_into().unwrap());
        message[at..at + 8].copy_from_slice(&(millis + shift).to_le_bytes());
    }
}

async fn beside_with_clock(app: &TestApp, shift: i64) -> TestApp {
    let uri = shifted(app.config.mongo.uri.expose_secret(), shift).await;
    TestApp::beside(app, |config| config.mongo.uri = uri.into()).await
}

#[tokio::test]
async fn d8_the_sweeper_goes_by_the_databases_clock() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let ticket = ada.issue("a.png", "image/png", &unique_png()).await;
    let slow = beside_with_clock(&app, -3 * HOUR).await;

    // By this machine's clock its time was over two hours ago; by the database's it is not.
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 2 * HOUR);
    let images = app.db.collection::<Document>("images");
    let was = app.db_image(ticket.id()).await.unwrap();
    let over = doc! { "urlsDieAt": past, "expiresAt": past, "due": past };
    images.update_one(doc! { "_id": ticket.id() }, doc! { "$set": over }).await.unwrap();
    slow.app.valet.sweep().await.unwrap();
    assert_eq!(app.db_state(ticket.id()).await, "pending", "nothing is swept early");

    // By this machine's clock its time has just begun; by the database's it is over.
    images.replace_one(doc! { "_id": ticket.id() }, was).await.unwrap();
    app.app.valet.sweep().await.unwrap();
    assert_eq!(app.db_state(ticket.id()).await, "pending");
    // Its own sweeper begins at once, too.
    let fast = beside_with_clock(&app, 25 * HOUR).await;
    let began = std::time::Instant::now();
    while app.db_state(ticket.id()).await != "gone" {
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{}", app.db_state(ticket.id()).await);
        fast.app.valet.sweep().await.unwrap();
    }
}
