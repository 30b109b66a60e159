//! Asserts that a healed cluster works: one image goes through its whole life on every server.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    files::{declaration, fixture},
    workload::users::password_of,
};

/// Asserts that sign-up, upload, confirm, the image's URL, gallery and delete work on every server.
///
/// # Panics
///
/// If one of these calls fails.
pub async fn assert_full_cycle_works(cluster: &Cluster) {
    let http = reqwest::Client::new();
    for server in &cluster.servers {
        let call = async |method: Method, path: &str, token: &str, body: Option<Value>| -> (StatusCode, Value) {
            let request = http.request(method, format!("{}{path}", server.base())).bearer_auth(token);
            let request = if let Some(body) = body { request.json(&body) } else { request };
            let answer = request.send().await.unwrap();
            (answer.status(), answer.json().await.unwrap_or_default())
        };
        let upload = async |token: &str, bytes: &[u8]| {
            let body = declaration("sea.png", "image/png", bytes);
            let began = Instant::now();
            let (status, ticket) = call(Method::POST, "/api/images/upload", token, Some(body)).await;
            assert_eq!(status, 201, "{ticket}");
            let mut put = http.put(ticket["upload"]["url"].as_str().unwrap());
            for (name, value) in ticket["upload"]["headers"].as_object().unwrap() {
                put = put.header(name, value.as_str().unwrap());
            }
            let sent = put.body(bytes.to_vec()).send().await.unwrap().status();
            let confirm = format!("/api/images/{}/confirm", ticket["id"].as_str().unwrap());
            let (status, image) = call(Method::POST, &confirm, token, None).await;
            // On a busy machine the URL or the upload may expire first. The second of slack: times in URLs are whole seconds.
            let valid = Duration::from_secs(ticket["upload"]["expiresIn"].as_u64().unwrap());
            let has_ended =
                began.elapsed() + Duration::from_secs(1) >= valid && (sent == 403 || matches!(status.as_u16(), 404 | 410));
            assert!((sent == 200 && status == 200) || has_ended, "{sent}, and {status} {image}");
            (status == 200).then_some((ticket, image))
        };
        let email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
        let body = json!({ "email": email, "password": password_of(&email) });
        let (status, session) = call(Method::POST, "/api/auth/signup", "", Some(body)).await;
        assert_eq!(status, 201, "{session}");
        let token = session["token"].as_str().unwrap();
        // The id behind the image makes its bytes unique.
        let bytes = [fixture("plain.png"), uuid::Uuid::new_v4().as_bytes().to_vec()].concat();
        let began = Instant::now();
        let (ticket, image) = loop {
            match upload(token, &bytes).await {
                Some(uploaded) => break uploaded,
                None => assert!(began.elapsed() < Duration::from_secs(60), "every upload ends before it is confirmed"),
            }
        };
        let path = format!("/api/images/{}", ticket["id"].as_str().unwrap());
        let read = http.get(image["url"].as_str().unwrap()).send().await.unwrap();
        assert!(read.bytes().await.unwrap() == bytes, "the bytes that were sent");
        let (status, gallery) = call(Method::GET, "/api/images/gallery", token, None).await;
        assert_eq!(status, 200, "{gallery}");
        assert_eq!(gallery["images"][0]["id"], ticket["id"]);
        assert_eq!(call(Method::DELETE, &path, token, None).await.0, 204);
        assert_eq!(call(Method::GET, &path, token, None).await.0, 404);
    }
}
