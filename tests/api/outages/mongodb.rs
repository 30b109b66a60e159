//! Covers an unresponsive MongoDB.

use valet::dev::mongod::{Mongod, MongodOptions};

use super::{black_hole::Hole, *};
use crate::dev_mongod::within;

/// Returns calls of every kind on existing data.
async fn calls(client: &mut Client) -> Vec<Call> {
    let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
    client.sign_in("signup", &email).await;
    let (image, _) = client.upload(&unique_png()).await;
    let files: Vec<_> = (0..100).map(|_| unique_png()).collect();
    let pending = put_all(client, &files).await;
    let multipart = json!({ "fileName": "big.png", "contentType": "image/png", "size": 6 << 20, "partSize": 5 << 20 });
    let (_, parts) = client.post("/api/images/multipart", &multipart).await;
    let (_, session) = client.post("/api/auth/login", &json!({ "email": email, "password": PASSWORD })).await;
    let (_, uppy) = client.call(Method::POST, "/api/uppy/session", None).await;
    let image = format!("/api/images/{}", image["id"].as_str().unwrap());
    let parts = format!("/api/images/{}", parts["id"].as_str().unwrap());
    let one = format!("/api/images/{}", pending[0]);
    let uppy = uppy["path"].as_str().unwrap();
    let (ids, refresh) = (json!({ "ids": pending }), json!({ "refreshToken": session["refreshToken"] }));
    let fresh: Vec<_> = (0..100).map(|_| declared("sea.png", "image/png", &unique_png())).collect();
    let account = json!({ "email": email, "password": PASSWORD });
    let newcomer = json!({ "email": format!("x{email}"), "password": PASSWORD });
    let told = json!({ "filename": "sea.png", "type": "image/png", "metadata": {} });
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
        post("/api/auth/signup", newcomer),
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
        act(format!("{one}/renew")),
        act(format!("{one}/confirm")),
        act(format!("{parts}/confirm")),
        post("/api/images/confirm", ids.clone()),
        post("/api/images/renew", ids.clone()),
        post("/api/images/read", ids.clone()),
        post("/api/images/delete", ids),
        post(format!("{uppy}/s3/multipart"), told),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn f3_stopped_database_is_noticed_in_time_and_nothing_accumulates() {
    let app = TestApp::start().await;
    let folder = std::env::temp_dir().join(format!("valet-stopped-{}", uuid::Uuid::new_v4().simple()));
    let mongod = Mongod::start(MongodOptions::new(&folder)).await.unwrap();
    let settings = Settings::for_app(&app).with("MONGODB_URI", &mongod.uri()).with("SWEEP_INTERVAL", "1s");
    let (process, mut client, admin) = watched(settings).await;
    let calls = calls(&mut client).await;
    let signal = |name: &str| {
        let kill = std::process::Command::new("kill").args([name, &mongod.pid().to_string()]).status();
        assert!(kill.unwrap().success());
    };
    signal("-STOP");
    // The last answer of the probe is cached for a second.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let mut sizes = Vec::new();
    for _ in 0..4 {
        assert_unavailable(&client, &calls).await;
        sizes.push(size(&process, &admin).await);
    }
    let ((tasks, memory), (tasks_later, memory_later)) = (sizes[0], sizes[3]);
    assert!(tasks_later <= tasks + 40 && memory_later <= memory + 32 * 1024, "tasks and KiB: {sizes:?}");
    signal("-CONT");
    let again = ["/readyz", "/api/auth/me", "/api/images/gallery"];
    join_all(again.map(|path| assert_recovers(&client, &process, get(path)))).await;
    client.upload(&unique_png()).await;
    drop(process);
    mongod.stop().await.unwrap();
    assert!(within(Duration::from_secs(5), || std::fs::remove_dir_all(&folder).is_ok()).await);
}

/// As when a firewall drops its connection table: connections stay open, and no bytes ever arrive.
#[tokio::test(flavor = "multi_thread")]
async fn f3_lost_database_connections_are_replaced() {
    let app = TestApp::start().await;
    let hole = Hole::before_mongodb(&app).await;
    let (process, mut client) = Settings::for_app(&app).with("MONGODB_URI", &hole.uri(&app)).start_listening().await;
    client.sign_in("signup", &format!("{}@example.com", uuid::Uuid::new_v4().simple())).await;
    // As many connections as there are calls.
    make(&client, &vec![get("/api/auth/me"); 40]).await;
    hole.lose();
    assert_unavailable(&client, &vec![get("/api/auth/me"); 5]).await;
    hole.find();
    assert_recovers(&client, &process, get("/readyz")).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    for (status, answer) in make(&client, &vec![get("/api/auth/me"); 60]).await {
        assert_eq!(status, 200, "{answer}");
    }
    client.upload(&unique_png()).await;
}

/// A call that waits for a connection waits at most until its deadline.
#[tokio::test(flavor = "multi_thread")]
async fn f6_small_pool_serves_many_clients_within_the_deadline() {
    let app = TestApp::start().await;
    let hole = Hole::before_mongodb(&app).await;
    let uri = format!("{}&maxPoolSize=4", hole.uri(&app));
    let (process, mut client) = Settings::for_app(&app).with("MONGODB_URI", &uri).start_listening().await;
    client.sign_in("signup", &format!("{}@example.com", uuid::Uuid::new_v4().simple())).await;
    let crowd = vec![get("/api/auth/me"); 200];
    assert!(make(&client, &crowd).await.iter().all(|(status, _)| *status == 200));
    hole.stall();
    assert_unavailable(&client, &crowd).await;
    hole.resume();
    assert_recovers(&client, &process, get("/api/auth/me")).await;
    assert!(make(&client, &crowd).await.iter().all(|(status, _)| *status == 200));
}
