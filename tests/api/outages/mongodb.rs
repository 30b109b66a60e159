//! Covers an unresponsive MongoDB.

use valet::dev::mongod::{Mongod, MongodOptions};

use super::{
    Call, Duration, Instant, LIMIT, Method, PASSWORD, PROBE_CACHE, Settings, TestApp, assert_nothing_accumulates,
    assert_recovers, assert_unavailable, declaration, get, join_all, json, make_calls, post, post_empty,
    stalling_relay::StallingRelay, start_with_admin, tasks_and_memory, unique_png, upload_all,
};
use crate::{dev_mongod::within, process_client::Client};

/// Number of rounds of calls during the outage; tasks and memory are measured after each round.
const ROUNDS: usize = 4;

/// Returns calls of every kind on existing data.
async fn calls(client: &mut Client) -> Vec<Call> {
    let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
    client.sign_in("signup", &email).await;
    let (image, _) = client.upload(&unique_png()).await;
    let files: Vec<_> = (0..100).map(|_| unique_png()).collect();
    let pending = upload_all(client, &files).await;
    let multipart = json!({ "fileName": "big.png", "contentType": "image/png", "size": 6 << 20, "partSize": 5 << 20 });
    let (_, parts) = client.post("/api/images/multipart", &multipart).await;
    let (_, session) = client.post("/api/auth/login", &json!({ "email": email, "password": PASSWORD })).await;
    let (_, uppy) = client.call(Method::POST, "/api/uppy/session", None).await;
    let image = format!("/api/images/{}", image["id"].as_str().unwrap());
    let parts = format!("/api/images/{}", parts["id"].as_str().unwrap());
    let upload = format!("/api/images/{}", pending[0]);
    let uppy = uppy["path"].as_str().unwrap();
    let (ids, refresh) = (json!({ "ids": pending }), json!({ "refreshToken": session["refreshToken"] }));
    let fresh: Vec<_> = (0..100).map(|_| declaration("sea.png", "image/png", &unique_png())).collect();
    let account = json!({ "email": email, "password": PASSWORD });
    let new_account = json!({ "email": format!("x{email}"), "password": PASSWORD });
    let uppy_file = json!({ "filename": "sea.png", "type": "image/png", "metadata": {} });
    vec![
        get("/readyz"),
        get("/api/auth/me"),
        get("/api/auth/sessions"),
        get("/api/images/gallery"),
        get("/api/images/pending"),
        get(&image),
        get(format!("{image}/download")),
        get(format!("{parts}/parts")),
        get(format!("{uppy}/s3/params?filename=sea.png&type=image/png")),
        post("/api/auth/login", account),
        post("/api/auth/signup", new_account),
        post("/api/auth/refresh", refresh.clone()),
        post("/api/auth/logout", refresh),
        post("/api/auth/me/delete", json!({ "password": PASSWORD })),
        (
            Method::PUT,
            "/api/auth/password".to_owned(),
            Some(json!({ "currentPassword": PASSWORD, "newPassword": "another three boats" })),
        ),
        (Method::PATCH, image.clone(), Some(json!({ "caption": "Sea" }))),
        (Method::DELETE, image, None),
        post("/api/images/upload", fresh[0].clone()),
        post("/api/images/upload/batch", json!({ "items": fresh })),
        post("/api/images/multipart", multipart),
        post(format!("{parts}/parts"), json!({ "parts": [{ "partNumber": 1 }] })),
        post_empty(format!("{upload}/renew")),
        post_empty(format!("{upload}/confirm")),
        post_empty(format!("{parts}/confirm")),
        post("/api/images/confirm", ids.clone()),
        post("/api/images/renew", ids.clone()),
        post("/api/images/read", ids.clone()),
        post("/api/images/delete", ids),
        post(format!("{uppy}/s3/multipart"), uppy_file),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn f3_stopped_database_is_noticed_in_time_and_nothing_accumulates() {
    let app = TestApp::start().await;
    let folder = std::env::temp_dir().join(format!("valet-stopped-{}", uuid::Uuid::new_v4().simple()));
    let mongod = Mongod::start(MongodOptions::new(&folder)).await.unwrap();
    let settings = Settings::for_app(&app).with("MONGODB_URI", &mongod.uri()).with("SWEEP_INTERVAL", "1s");
    let (process, mut client, admin) = start_with_admin(settings).await;
    let calls = calls(&mut client).await;
    let signal = |name: &str| {
        let kill = std::process::Command::new("kill").args([name, &mongod.pid().to_string()]).status();
        assert!(kill.unwrap().success());
    };
    signal("-STOP");
    tokio::time::sleep(PROBE_CACHE).await;
    let mut sizes = Vec::new();
    for _ in 0..ROUNDS {
        assert_unavailable(&client, &calls).await;
        sizes.push(tasks_and_memory(&process, &admin).await);
    }
    assert_nothing_accumulates(&sizes);
    signal("-CONT");
    let paths = ["/readyz", "/api/auth/me", "/api/images/gallery"];
    join_all(paths.map(|path| assert_recovers(&client, &process, get(path)))).await;
    client.upload(&unique_png()).await;
    drop(process);
    mongod.stop().await.unwrap();
    assert!(within(Duration::from_secs(30), || std::fs::remove_dir_all(&folder).is_ok()).await);
}

/// Simulates a firewall that loses its connection table: connections stay open, and no bytes arrive any more.
#[tokio::test(flavor = "multi_thread")]
async fn f3_lost_database_connections_are_replaced() {
    let app = TestApp::start().await;
    let relay = StallingRelay::before_mongodb(&app).await;
    let (process, mut client) = Settings::for_app(&app).with("MONGODB_URI", &relay.uri(&app)).start_listening().await;
    client.sign_in("signup", &format!("{}@example.com", uuid::Uuid::new_v4().simple())).await;
    client.upload(&unique_png()).await;
    // Opens as many connections as there are calls.
    make_calls(&client, &vec![get("/api/auth/me"); 40]).await;
    relay.drop_open_connections();
    assert_unavailable(&client, &vec![get("/api/auth/me"); 5]).await;
    relay.accept_again();
    assert_recovers(&client, &process, get("/readyz")).await;
    // Until the driver's next heartbeat, its pool may hold lost connections.
    let (calls, began) = (vec![get("/api/auth/me"); 60], Instant::now());
    while !make_calls(&client, &calls).await.iter().all(|(status, _)| *status == 200) {
        assert!(began.elapsed() < LIMIT, "{}", process.err());
    }
    client.upload(&unique_png()).await;
}

/// A call that waits for a connection waits at most until its deadline.
#[tokio::test(flavor = "multi_thread")]
async fn f6_small_pool_serves_many_clients_within_the_deadline() {
    let app = TestApp::start().await;
    let relay = StallingRelay::before_mongodb(&app).await;
    let uri = format!("{}&maxPoolSize=4", relay.uri(&app));
    let (process, mut client) = Settings::for_app(&app).with("MONGODB_URI", &uri).start_listening().await;
    client.sign_in("signup", &format!("{}@example.com", uuid::Uuid::new_v4().simple())).await;
    // Many more than connections, and few enough for a loaded machine to answer all within the deadline.
    let calls = vec![get("/api/auth/me"); 60];
    assert!(make_calls(&client, &calls).await.iter().all(|(status, _)| *status == 200));
    relay.stall();
    assert_unavailable(&client, &calls).await;
    relay.resume();
    assert_recovers(&client, &process, get("/api/auth/me")).await;
    assert!(make_calls(&client, &calls).await.iter().all(|(status, _)| *status == 200));
}
