//! Covers the ends of event streams: with the token, with the session, by a suspension, of a client that does not read, and with
//! the server.

use tokio::{io::AsyncReadExt, net::TcpSocket};
use valet::model::Scope;

use super::*;
use crate::process_client::Ended;
use crate::{app::PASSWORD, serve::Settings};

/// Time within which a session's end takes effect on every server (30 s), with slack for a busy machine.
const SESSION_END: Duration = Duration::from_secs(30 + 5);

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_their_session_on_every_server() {
    let first = TestApp::start().await;
    let second = TestApp::start_second_server(&first, |_| {}).await;
    let (ada, bob, eve) = (first.user().await, first.user().await, first.user().await);
    let session = first.anonymous().post("/api/auth/login", json!({ "email": ada.email, "password": PASSWORD })).await;
    let (mut eves_events, _) = Events::open(&on_server(&eve, &second), None).await;
    let signed_out = Caller { token: Some(session.json["token"].as_str().unwrap().to_owned()), ..on_server(&ada, &second) };
    let (mut signed_out, _) = Events::open(&signed_out, None).await;
    let (mut adas_events, _) = Events::open(&on_server(&ada, &second), None).await;
    let (mut suspended, _) = Events::open(&on_server(&bob, &second), None).await;

    let refresh = json!({ "refreshToken": session.json["refreshToken"] });
    assert_eq!(first.anonymous().post("/api/auth/logout", refresh).await.status, 204);
    let key = first.create_service_key(&[Scope::UsersWrite]).await;
    assert!(key.post_empty(&format!("/api/admin/users/{}/suspend", bob.id)).await.status < 300);
    let (signed_out, suspended) = tokio::join!(signed_out.end(SESSION_END), suspended.end(SESSION_END));
    println!("ended after {signed_out:?} (signed out) and {suspended:?} (suspended)");
    assert_eq!(request(&on_server(&bob, &first), None).await.status(), 403);
    // The other session of the same user, and another user.
    let image = upload(&ada).await;
    assert_eq!(adas_events.event().await.type_and_image(), ("image.ready", image));
    upload(&eve).await;
    assert_eq!(eves_events.event().await.event, "image.ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_their_token() {
    // Long enough for a busy machine to open the stream meanwhile.
    let access_ttl = Duration::from_secs(12);
    let app = TestApp::start_with(|config| config.tokens.access_ttl = access_ttl).await;
    let before = Instant::now();
    let ada = app.user().await;
    let (mut events, _) = Events::open(&ada, None).await;
    events.end(SESSION_END).await;
    // Tokens have whole seconds.
    assert!(before.elapsed() > access_ttl - Duration::from_secs(1), "not before the token: {:?}", before.elapsed());
    assert_eq!(ada.get("/api/events").await.problem(), (401, "token_expired"));
}

/// A client reads nothing while megabytes of events occur: the server queues few of them, and closes the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_is_cut_off() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    // Fewer than the 100 events that may wait for a stream: a round does not become a reset while the client's buffers have room.
    let images = 90;
    db_insert_ready(&app, &ada.id, images).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(app.base.trim_start_matches("http://").parse().unwrap()).await.unwrap();
    let token = ada.token.as_ref().unwrap();
    let head = format!("GET /api/events HTTP/1.1\r\nhost: valet\r\nauthorization: Bearer {token}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
    let (mut reading, _) = Events::open(&ada, None).await;
    let (mut bobs_events, _) = Events::open(&bob, None).await;
    // More bytes than fit into the buffers of both systems.
    let (mut announced, mut bytes) = (0, 0);
    for round in 0.. {
        db_caption(&app, &ada.id, &format!("caption {round}")).await;
        for _ in 0..images {
            let frame = reading.event().await;
            announced += 1;
            // With about 20 bytes of field names and line ends.
            bytes += frame.id.len() + frame.event.len() + frame.data.len() + 20;
            if frame.event == "reset" {
                break;
            }
        }
        if bytes > 4 << 20 {
            break;
        }
    }
    upload(&bob).await;
    assert_eq!(bobs_events.event().await.event, "image.ready", "streams of other users are served");
    // The server closes a connection whose client has read nothing for 20 s.
    tokio::time::sleep(Duration::from_secs(24)).await;
    let mut sent = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut sent)).await;
    println!("{} bytes were sent; the other client got {bytes} bytes with {announced} events", sent.len());
    assert!(end.is_ok(), "the connection is closed");
    assert!(sent.len() < bytes, "the server discards the rest of the messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_its_streams_at_once() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let (process, client) = Settings::for_app(&app).start_listening().await;
    let open = client.http.get(format!("{}/api/events", client.base)).bearer_auth(ada.token.as_ref().unwrap());
    let response = open.send().await.unwrap();
    let mut events = Events { response, unread: String::new() };
    assert!(events.block(PATIENCE).await.is_some());
    process.signal("-TERM");
    // A stream that counted as a request in progress would end after 25 s.
    let ended = events.end(Duration::from_secs(15)).await;
    let Ended { status, err, .. } = process.wait_for_end(Duration::from_secs(15)).await;
    assert!(status.success() && err.contains("stopped"), "{status} {err}");
    println!("the stream ended after {ended:?}");
}

#[tokio::test]
async fn head_requests_open_no_stream() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for _ in 0..7 {
        let head = app.http.head(format!("{}/api/events", app.base)).bearer_auth(ada.token.as_ref().unwrap());
        assert_eq!(head.send().await.unwrap().status(), 200);
    }
}
