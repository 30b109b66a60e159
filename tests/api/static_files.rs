//! Covers the files of the gallery page and Swagger UI; `tests/browser` covers their behaviour.

use reqwest::header;

use super::app::TestApp;

#[tokio::test]
async fn page_is_served_with_its_files_and_a_policy_that_allows_only_the_bucket() {
    let app =
        TestApp::start_with(|config| config.s3.public_endpoint = Some("https://pictures.example:8443".parse().unwrap())).await;
    let get = |path: &str| app.http.get(format!("{}{path}", app.base));
    let page = get("/").send().await.unwrap();
    let header = |name| page.headers()[name].to_str().unwrap().to_owned();
    assert_eq!((page.status().as_u16(), header("content-type").as_str()), (200, "text/html; charset=utf-8"));
    assert_eq!(header("cache-control"), "no-cache");
    let policy = header("content-security-policy");
    let bucket = if app.config.s3.force_path_style { "https://pictures.example:8443" } else { ".pictures.example:8443" };
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; "), "{policy}");
    assert!(policy.contains(bucket) && !policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    let etag = header("etag");
    let again = get("/").header(header::IF_NONE_MATCH, &etag).send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers()["etag"].to_str().unwrap()), (304, etag.as_str()));

    // RFC 9110 section 13.1.2; a proxy that compresses makes a weak tag of a strong one.
    for path in ["/", "/docs", "/docs/swagger-ui.js", "/openapi.json"] {
        let etag = get(path).send().await.unwrap().headers()["etag"].to_str().unwrap().to_owned();
        for (tags, status) in [
            (etag.clone(), 304),
            (format!("W/{etag}"), 304),
            (format!("\"other\", W/{etag}"), 304),
            ("*".to_owned(), 304),
            ("\"other\"".to_owned(), 200),
        ] {
            let answer = get(path).header(header::IF_NONE_MATCH, &tags).send().await.unwrap();
            assert_eq!(answer.status(), status, "{path} {tags}");
            assert_eq!(answer.bytes().await.unwrap().is_empty(), status == 304, "{path} {tags}");
        }
    }

    let html = page.text().await.unwrap();
    assert!(!html.contains('{'), "the page has no placeholder left");
    let links: Vec<_> = html.split(['"', '\'']).filter(|text| text.starts_with("/assets/")).map(str::to_owned).collect();
    assert!(links.len() > 20, "{links:?}");
    for link in &links {
        let file = get(link).send().await.unwrap();
        assert_eq!(file.status(), 200, "{link}");
        assert_eq!(file.headers()["cache-control"], "public, max-age=31536000, immutable", "{link}");
        let content_type = file.headers()["content-type"].to_str().unwrap();
        let expected_type = match link.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(content_type, expected_type, "{link}");
        assert_eq!(file.headers()["x-content-type-options"], "nosniff", "{link}");
    }
    let unknown_version = get("/assets/0000000000000000/app.js").send().await.unwrap();
    assert_eq!(unknown_version.status(), 404);
}

#[tokio::test]
async fn documentation_is_found_with_a_trailing_slash() {
    let app = TestApp::start().await;
    let page = app.http.get(format!("{}/docs/", app.base)).send().await.unwrap();
    assert_eq!((page.status().as_u16(), page.url().path()), (200, "/docs"));
}
