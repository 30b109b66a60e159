//! Covers well-formed values with a meaning for databases, prototype chains or parsers: they are stored as text, or rejected.

use serde_json::json;

use crate::app::{TestApp, declaration, unique_png};

/// Texts with a meaning in MongoDB's queries and in JavaScript.
const OPERATORS: [&str; 5] = ["{\"$gt\":\"\"}", "$where", "[$ne]", "';return true;var a='", "\u{2028}"];
/// Members that every JavaScript object has.
const PROTOTYPES: [&str; 6] = ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "valueOf"];

/// Percent-encodes every byte.
fn percent_encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[tokio::test]
async fn query_operators_in_paths_and_queries_find_nothing() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    ada.upload("sea.png", "image/png", &unique_png()).await;
    for evil in OPERATORS.into_iter().chain(PROTOTYPES) {
        let evil = percent_encode(evil);
        for path in [format!("/api/images/{evil}"), format!("/api/images/{evil}/download"), format!("/api/images/{evil}/parts")] {
            assert_eq!(eve.get(&path).await.problem(), (404, "not_found"), "{path}");
        }
        assert_eq!(eve.delete(&format!("/api/auth/sessions/{evil}")).await.problem(), (404, "not_found"), "{evil}");
        assert_eq!(eve.get(&format!("/api/images/gallery?cursor={evil}")).await.problem(), (400, "invalid_cursor"), "{evil}");
        assert_eq!(eve.get(&format!("/api/images/gallery?limit={evil}")).await.problem(), (400, "invalid_request"), "{evil}");
    }
    // Some query parsers turn brackets in a name into an object; here they have no meaning.
    for query in
        ["cursor[$gt]=", "limit[$ne]=1", "user[$ne]=x", "__proto__[limit]=1", "constructor.prototype.limit=1", "filter={}"]
    {
        let page = eve.get(&format!("/api/images/gallery?{query}")).await;
        assert_eq!((page.status, page.json["images"].as_array().map(Vec::len)), (200, Some(0)), "{query}: {page:?}");
    }
    assert_eq!(ada.get("/api/images/gallery").await.json["images"].as_array().unwrap().len(), 1);
    let all_ids = json!({ "ids": OPERATORS.into_iter().chain(PROTOTYPES).collect::<Vec<_>>() });
    for call in ["read", "delete", "confirm", "renew"] {
        let answer = eve.post(&format!("/api/images/{call}"), all_ids.clone()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.json["results"].as_array().unwrap().iter().all(|one| one["status"] == 404), "{call}: {answer:?}");
    }
}

/// Fields of free text keep every value exactly.
#[tokio::test]
async fn prototype_names_are_stored_as_text() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for name in PROTOTYPES {
        let image = ada.upload(name, "image/png", &unique_png()).await;
        assert_eq!(image["fileName"], name);
        let path = format!("/api/images/{}", image["id"].as_str().unwrap());
        assert_eq!(ada.patch(&path, json!({ "caption": name })).await.json["caption"], name);
        let keyed = async |bytes: &[u8]| {
            let body = declaration(name, "image/png", bytes);
            ada.send(reqwest::Method::POST, "/api/images/upload", |request| request.header("idempotency-key", name).json(&body))
                .await
        };
        let bytes = unique_png();
        let (first, again, other) = (keyed(&bytes).await, keyed(&bytes).await, keyed(&unique_png()).await);
        assert_eq!((first.status, again.status, first.id()), (201, 200, again.id()), "{name}");
        assert_eq!(other.problem(), (422, "idempotency_key_reused"), "{name}");
    }
    for member in PROTOTYPES {
        let mut body = declaration("a.png", "image/png", &unique_png());
        body[member] = json!({ "polluted": true });
        assert_eq!(ada.post("/api/images/upload", body).await.problem(), (400, "invalid_request"), "{member}");
    }
}

#[tokio::test]
async fn expensive_numbers_keys_and_text_are_answered_quickly() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let with_size = |size: &str| format!("{{\"fileName\":\"a\",\"contentType\":\"image/png\",\"sha256\":\"x\",\"size\":{size}}}");
    let digits = "9".repeat(10_000);
    let ids = |id: &str| format!("{{\"ids\":[{}]}}", vec![id; 40_000].join(","));
    let cases: Vec<(&str, &str, Vec<u8>, u16)> = vec![
        ("/api/images/upload", "an exponent", with_size("1e999").into(), 400),
        ("/api/images/upload", "a small exponent", with_size("1e-999999999").into(), 422),
        ("/api/images/upload", "ten thousand digits", with_size(&digits).into(), 400),
        ("/api/images/upload", "ten thousand digits after the point", with_size(&format!("0.{digits}")).into(), 422),
        ("/api/images/upload", "infinity", with_size("Infinity").into(), 400),
        ("/api/images/upload", "hexadecimal", with_size("0x10").into(), 400),
        ("/api/images/upload", "one key 1500 times", format!("{{{}\"size\":1}}", "\"size\":1,".repeat(1500)).into(), 400),
        (
            "/api/images/upload",
            "1200 keys",
            format!("{{{}}}", (0..1200).map(|n| format!("\"k{n}\":1")).collect::<Vec<_>>().join(",")).into(),
            400,
        ),
        ("/api/images/read", "many ids", ids("\"\"").into(), 400),
        ("/api/images/read", "deep ids", format!("{{\"ids\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)).into(), 400),
        ("/api/images/read", "escapes", format!("{{\"ids\":[\"{}\"]}}", "\\u0000".repeat(40_000)).into(), 200),
        ("/api/images/read", "bad UTF-8", [&b"{\"ids\":[\""[..], &[0xff; 1000], b"\"]}"].concat(), 400),
        ("/api/images/read", "an overlong slash", b"{\"ids\":[\"\xc0\xaf\"]}".to_vec(), 400),
        ("/api/images/read", "a surrogate in UTF-8", b"{\"ids\":[\"\xed\xa0\x80\"]}".to_vec(), 400),
    ];
    for (path, case, body, status) in cases {
        let began = std::time::Instant::now();
        let send = |request: reqwest::RequestBuilder| request.header("content-type", "application/json").body(body);
        let answer = ada.send(reqwest::Method::POST, path, send).await;
        assert_eq!(answer.status, status, "{case}: {answer:?}");
        assert!(began.elapsed() < super::SOON, "{case}: {:?}", began.elapsed());
    }
}
