//! CORS: preflights, and answers that pages may read.

use super::*;

#[tokio::test]
async fn preflights() {
    let server = Server::start().await;
    let url = format!("{}/{BUCKET}/k?X-Amz-Signature=abc", server.base);
    let ask = async |origin: &str, method: &str, headers: &str| {
        let r = server.http.request(Method::OPTIONS, &url).header("origin", origin);
        r.header("access-control-request-method", method).header("access-control-request-headers", headers).send().await.unwrap()
    };
    for origin in ["http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:3000", "https://app.example"] {
        for method in ["GET", "PUT", "POST", "HEAD", "DELETE"] {
            let ok = ask(origin, method, "content-type, If-None-Match,x-amz-checksum-sha256, x-amz-meta-any").await;
            let headers = ok.headers().clone();
            assert_eq!(headers["access-control-allow-origin"], origin);
            assert_eq!(headers["vary"], "origin");
            assert_eq!(headers["access-control-max-age"], "3000");
            assert!(headers["access-control-allow-methods"].to_str().unwrap().contains(method));
            let allowed = headers["access-control-allow-headers"].to_str().unwrap().to_owned();
            for name in [
                "authorization",
                "content-md5",
                "content-disposition",
                "if-none-match",
                "range",
                "x-amz-checksum-sha256",
                "x-amz-meta-any",
            ] {
                assert!(allowed.split(", ").any(|h| h == name), "{name} in {allowed}");
            }
            assert!(!allowed.contains('*'));
            expect(ok, 200, "").await;
        }
    }
    for (origin, method, headers) in [
        ("http://evil.example", "PUT", "content-type"),
        ("http://localhost.evil.example", "PUT", ""),
        ("null", "GET", ""),
        ("http://localhost:5173", "PATCH", ""),
        ("http://localhost:5173", "PUT", "x-evil"),
    ] {
        let no = ask(origin, method, headers).await;
        assert!(!no.headers().contains_key("access-control-allow-headers"));
        assert!(!no.headers().contains_key("access-control-allow-methods"));
        assert_eq!(no.headers().contains_key("access-control-allow-origin"), origin.starts_with("http://localhost:"));
        expect(no, 403, "AccessForbidden").await;
    }
    server.end().await;
}

#[tokio::test]
async fn answers_can_be_read_by_allowed_pages_only() {
    let server = Server::start().await;
    server.put("k", b"x").await;
    let good = server.sign_get("k").await;
    let bad = good.replace("X-Amz-Expires=600", "X-Amz-Expires=601");
    for (url, status) in [(&good, 200), (&bad, 403)] {
        let seen = server.http.get(url).header("origin", "https://app.example").send().await.unwrap();
        assert_eq!(seen.headers()["access-control-allow-origin"], "https://app.example");
        let exposed = seen.headers()["access-control-expose-headers"].to_str().unwrap().to_owned();
        for name in [
            "ETag",
            "Location",
            "x-amz-checksum-sha256",
            "x-amz-checksum-crc32",
            "x-amz-checksum-crc32c",
            "x-amz-checksum-crc64nvme",
            "x-amz-request-id",
            "x-amz-version-id",
            "content-range",
            "date",
        ] {
            assert!(exposed.split(", ").any(|e| e == name), "{name}");
        }
        expect(seen, status, "").await;
        let hidden = server.http.get(url).header("origin", "https://evil.example").send().await.unwrap();
        assert!(!hidden.headers().contains_key("access-control-allow-origin"));
        assert_eq!(hidden.headers()["vary"], "origin");
    }
    server.end().await;
}
