//! Covers previews by imgproxy: the URLs in answers, and the findings of `valet check` about the server. Instead of imgproxy, which
//! the tests do not need, a server here checks URLs as imgproxy documents it, and answers with the object's bytes.
//!
//! Routes: GET /api/images/gallery, GET /api/images/{id}.
//! Commands: valet check.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use poem::{EndpointExt, Response, Server, http::StatusCode, listener::TcpAcceptor};
use serde_json::{Value, json};
use time::OffsetDateTime;
use valet::{
    config::{Config, Previews},
    domain::doctor::{self, Answer, Options},
    signer::{Imgproxy, ImgproxyKey},
};

use super::app::{TestApp, declaration, fixture, unique_png};

/// imgproxy's key, with which URLs are signed.
const KEY: &[u8] = b"a key of this test only";
/// imgproxy's salt, which is signed with each path.
const SALT: &[u8] = b"a salt of this test only";

/// Check of a URL that the server leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leniency {
    None,
    Signature,
    Expiry,
}

/// Answers a request with an object's bytes, or with the status of imgproxy's rejection.
async fn answer(path: &str, s3: &aws_sdk_s3::Client, leniency: Leniency) -> Result<Vec<u8>, StatusCode> {
    let (signature, signed) = path.split_at(path[1..].find('/').ok_or(StatusCode::NOT_FOUND)? + 1);
    let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &[SALT, signed.as_bytes()].concat());
    if signature[1..] != URL_SAFE_NO_PAD.encode(expected) && leniency != Leniency::Signature {
        return Err(StatusCode::FORBIDDEN);
    }
    let (options, source) = signed.split_once("/plain/s3://").ok_or(StatusCode::NOT_FOUND)?;
    let expires = options.split('/').find_map(|option| option.strip_prefix("exp:")).and_then(|at| at.parse::<i64>().ok());
    if expires.is_some_and(|at| at < OffsetDateTime::now_utc().unix_timestamp()) && leniency != Leniency::Expiry {
        return Err(StatusCode::NOT_FOUND);
    }
    let (bucket, key) = source.split_once('/').ok_or(StatusCode::NOT_FOUND)?;
    let object = s3.get_object().bucket(bucket).key(key).send().await.map_err(|_| StatusCode::NOT_FOUND)?;
    Ok(object.body.collect().await.map_err(|_| StatusCode::NOT_FOUND)?.to_vec())
}

/// Starts an imgproxy; returns its address.
async fn start_server(s3: aws_sdk_s3::Client, leniency: Leniency) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let endpoint = poem::endpoint::make(move |request: poem::Request| {
        let s3 = s3.clone();
        async move {
            match answer(request.uri().path(), &s3, leniency).await {
                Ok(bytes) => Response::builder().content_type("image/png").body(bytes),
                Err(status) => Response::builder().status(status).body("rejected"),
            }
        }
    });
    let acceptor = TcpAcceptor::from_std(listener.into_std().unwrap()).unwrap();
    tokio::spawn(Server::new_with_acceptor(acceptor).run(endpoint.map_to_response()));
    address
}

/// Configures an imgproxy with [`SALT`].
fn configure(config: &mut Config, base_url: String) {
    configure_with(config, base_url, SALT);
}

/// Configures an imgproxy with this salt.
fn configure_with(config: &mut Config, base_url: String, salt: &[u8]) {
    let imgproxy = Imgproxy { base_url, key: ImgproxyKey::new(KEY, salt), options: "q:80/sm:1/ar:1".to_owned() };
    config.previews = Previews::Imgproxy(Box::new(imgproxy));
}

/// Starts a Valet server, and an imgproxy that makes its previews.
async fn start(leniency: Leniency) -> TestApp {
    let store = TestApp::start().await;
    let base_url = start_server(store.s3.clone(), leniency).await;
    TestApp::start_second_server(&store, |config| configure(config, base_url)).await
}

#[tokio::test]
async fn images_have_previews_that_load() {
    let app = start(Leniency::None).await;
    let ada = app.user().await;
    let bytes = fixture("deep.jpg");
    let image = ada.upload("a.jpg", "image/jpeg", &bytes).await;
    assert_eq!(image["previewUrl"], image["previews"][0]["url"]);
    for preview in image["previews"].as_array().unwrap() {
        let loaded = app.http.get(preview["url"].as_str().unwrap()).send().await.unwrap();
        assert_eq!(loaded.status(), 200);
        assert_eq!(loaded.bytes().await.unwrap(), bytes);
        // The image is smaller than any preview, and imgproxy does not enlarge it.
        assert_eq!((&preview["width"], &preview["height"]), (&image["width"], &image["height"]));
    }
    // Every answer has the same previews, and the same URLs within a signing window.
    let id = image["id"].as_str().unwrap();
    let (read, page) = (ada.get(&format!("/api/images/{id}")).await, ada.get("/api/images/gallery").await);
    let read_again = ada.post("/api/images/read", json!({ "ids": [id] })).await;
    for found in [&read.json, &page.json["images"][0], &read_again.json["results"][0]["image"]] {
        let same_window = found["urlExpiresAt"] == image["urlExpiresAt"];
        assert!(!same_window || found == &image, "{found}");
    }
    let etag = page.header("etag").to_owned();
    let again = ada.send(reqwest::Method::GET, "/api/images/gallery", |request| request.header("if-none-match", &etag)).await;
    assert!(again.status == 304 || again.json["images"][0]["urlExpiresAt"] != image["urlExpiresAt"], "{again:?}");
    // A deleted image has no picture.
    assert_eq!(ada.delete(&format!("/api/images/{id}")).await.status, 204);
    assert_eq!(app.http.get(image["previewUrl"].as_str().unwrap()).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn preview_of_the_client_comes_first() {
    let app = start(Leniency::None).await;
    let ada = app.user().await;
    let (bytes, preview) = (unique_png(), fixture("plain.jpg"));
    let mut body = declaration("a.png", "image/png", &bytes);
    body["preview"] = declaration("x", "image/jpeg", &preview);
    body["preview"].as_object_mut().unwrap().remove("fileName");
    let ticket = ada.post("/api/images/upload", body).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    assert_eq!(app.put(&ticket.json["previewUpload"], preview).await, 200);
    let image = ada.confirm(ticket.id()).await.json;
    assert!(image["previewUrl"].as_str().unwrap().contains("-preview?"), "{image}");
    assert_eq!(image["previews"].as_array().unwrap().len(), 1, "{image}");
    assert_eq!(ada.get("/api/images/gallery").await.json["images"][0]["previews"][0]["width"], image["width"]);
}

#[tokio::test]
async fn answers_have_no_previews_without_a_server() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let page = ada.get("/api/images/gallery").await.json;
    let has_previews = |image: &Value| image.get("previews").is_some() || image.get("previewUrl").is_some();
    assert!(!has_previews(&image) && !has_previews(&page["images"][0]));
}

/// Returns the answers of `valet check` about pictures and signatures of imgproxy.
async fn check(config: &Config) -> [Answer; 2] {
    let report = doctor::run(config, Options::default()).await;
    println!("{report}");
    let find = |id: &str| report.findings.iter().find(|finding| finding.rule.id == id).unwrap().answer.clone();
    [find("imgproxy_picture"), find("imgproxy_signature")]
}

#[tokio::test]
async fn check_requests_a_picture_and_forged_urls() {
    let store = TestApp::start().await;
    let mut config = store.config.clone();
    assert!(matches!(check(&config).await, [Answer::Skipped(_), Answer::Skipped(_)]));

    let strict = start_server(store.s3.clone(), Leniency::None).await;
    configure(&mut config, strict.clone());
    let found = check(&config).await;
    assert!(matches!(found, [Answer::Yes(_), Answer::Yes(_)]), "{found:?}");

    for (leniency, named) in [(Leniency::Signature, "without a signature, changed"), (Leniency::Expiry, "expired")] {
        configure(&mut config, start_server(store.s3.clone(), leniency).await);
        let [picture, signature] = check(&config).await;
        assert!(matches!(picture, Answer::Yes(_)), "{picture:?}");
        assert!(matches!(&signature, Answer::No(seen) if seen.contains(named)), "{leniency:?}: {signature:?}");
    }

    configure_with(&mut config, strict, b"another salt");
    let found = check(&config).await;
    assert!(matches!(&found, [Answer::No(seen), Answer::Skipped(_)] if seen.contains("403")), "{found:?}");

    // No server listens on this port.
    configure(&mut config, "http://127.0.0.1:9".to_owned());
    let found = check(&config).await;
    assert!(matches!(found, [Answer::No(_), Answer::No(_)]), "{found:?}");
}

#[tokio::test]
async fn page_may_show_pictures_of_the_server() {
    let store = TestApp::start().await;
    let app = TestApp::start_second_server(&store, |config| configure(config, "https://img.example/previews".to_owned())).await;
    let page = app.http.get(&app.base).timeout(Duration::from_secs(30)).send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    let images = policy.split("; ").find(|directive| directive.starts_with("img-src ")).unwrap();
    assert!(images.ends_with(" https://img.example"), "{policy}");
}
