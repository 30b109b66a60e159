//! Covers the settings that switch features off: sign-up, Uppy's calls, the documentation.
//!
//! Routes: POST /api/auth/signup.

use serde_json::{Value, json};

use super::{
    app::{PASSWORD, TestApp},
    example_requests::operations,
    program::Process,
    serve::Settings,
};

#[tokio::test]
async fn signup_off_closes_sign_up_but_not_login() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let closed = TestApp::start_second_server(&app, |config| config.switches.signup = false).await;
    let anonymous = closed.anonymous();
    let rejected = anonymous.post("/api/auth/signup", json!({ "email": "new@example.com", "password": PASSWORD })).await;
    assert_eq!(rejected.problem(), (403, "signup_closed"));
    let login = anonymous.post("/api/auth/login", json!({ "email": ada.email, "password": PASSWORD })).await;
    assert_eq!(login.status, 200, "{login:?}");
    let refreshed = anonymous.post("/api/auth/refresh", json!({ "refreshToken": login.json["refreshToken"] })).await;
    assert_eq!(refreshed.status, 200, "{refreshed:?}");
    for (server, setting) in [(&app, "on"), (&closed, "off")] {
        let page = server.http.get(&server.base).send().await.unwrap().text().await.unwrap();
        assert!(page.contains(&format!("data-signup=\"{setting}\"")), "{page}");
    }
}

#[tokio::test]
async fn uppy_off_removes_its_calls_from_the_server_and_the_document() {
    let app = TestApp::start_with(|config| config.switches.uppy = false).await;
    let ada = app.user().await;
    let uppy_operations: Vec<_> = operations().into_iter().filter(|one| one.template.contains("/uppy/")).collect();
    assert_eq!(uppy_operations.len(), 9);
    for operation in &uppy_operations {
        // Sent without `Caller::send`, which would compare the answer with the complete document.
        let request =
            app.http.request(operation.method.clone(), format!("{}{}", app.base, operation.path.replace("{token}", "t")));
        let request = request.bearer_auth(ada.token.as_ref().unwrap()).json(&operation.body.clone().unwrap_or(json!({})));
        let answer = request.send().await.unwrap();
        let (status, problem) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
        assert_eq!((status, problem["code"].as_str()), (404, Some("not_found")), "{}", operation.id);
    }
    let document: Value = app.http.get(format!("{}/openapi.json", app.base)).send().await.unwrap().json().await.unwrap();
    let whole = valet::http::openapi::document();
    let paths = |document: &Value| document["paths"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let others: Vec<_> = paths(&whole).into_iter().filter(|path| !path.contains("/uppy/")).collect();
    assert_eq!(paths(&document), others);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    assert!(!schemas.keys().any(|name| name.starts_with("Uppy")), "{:?}", schemas.keys());
    assert!(!document["tags"].as_array().unwrap().iter().any(|tag| tag["name"] == "Uppy"));
}

#[tokio::test]
async fn docs_off_removes_the_documentation() {
    let app = TestApp::start_with(|config| config.switches.docs = false).await;
    for path in ["/docs", "/docs/", "/docs/swagger-ui.js", "/docs/swagger-ui.css", "/docs/start.js", "/openapi.json"] {
        assert_eq!(app.anonymous().get(path).await.problem(), (404, "not_found"), "{path}");
    }
    let page = app.http.get(&app.base).send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().contains("data-docs=\"off\""));
    app.user().await;
    let open = TestApp::start().await;
    let start = open.http.get(format!("{}/docs/start.js", open.base)).send().await.unwrap().text().await.unwrap();
    assert!(
        start.contains("SwaggerUIBundle") && !start.contains("persistAuthorization"),
        "the page does not store tokens: {start}"
    );
}

/// Behind a proxy that is missing in `TRUSTED_PROXIES` all clients share one address: the log reports it once.
#[tokio::test(flavor = "multi_thread")]
async fn untrusted_proxy_is_logged_once() {
    let app = TestApp::start().await;
    for (trusted, warnings) in [("", 1), ("127.0.0.1", 0)] {
        let (process, client) = Settings::for_app(&app).with("TRUSTED_PROXIES", trusted).start_listening().await;
        for _ in 0..3 {
            let livez = client.http.get(format!("{}/livez", client.base));
            assert_eq!(livez.header("x-forwarded-for", "198.51.100.1").send().await.unwrap().status(), 200);
        }
        assert_eq!(client.get("/livez").await.0, 200);
        let is_logged = |process: &Process| process.err().contains("not in TRUSTED_PROXIES");
        if warnings > 0 {
            process.wait_for(|process| Some(()).filter(|()| is_logged(process))).await;
        }
        let log = process.err();
        assert_eq!(log.lines().filter(|line| line.contains("not in TRUSTED_PROXIES")).count(), warnings, "{log}");
    }
}
