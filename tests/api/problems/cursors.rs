//! Covers the parameters of listings: limits out of range, and cursors that the listing has not issued to this user.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{CANARY, assert_refused};
use crate::app::{Caller, TestApp, unique_png};

const GALLERY: &str = "/api/images/gallery";
const PENDING: &str = "/api/images/pending";

#[tokio::test]
async fn limit_is_from_1_to_100() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for path in [GALLERY, PENDING] {
        for limit in
            ["0", "101", "-1", "1.5", "1e1", "", "%20", "ten", CANARY, "0x10", "99999999999999999999", "%00", "%ff", "[%24gt]"]
        {
            let answer = ada.get(&format!("{path}?limit={limit}")).await;
            assert_refused(&answer, (400, "invalid_request"), &format!("{path} {limit:?}"));
            assert_eq!(answer.json["errors"][0]["field"], "limit", "{answer:?}");
        }
        for limit in ["1", "100"] {
            assert_eq!(ada.get(&format!("{path}?limit={limit}")).await.status, 200, "{path} {limit}");
        }
    }
}

/// Returns the `nextCursor` of a page with one entry.
async fn cursor(caller: &Caller<'_>, path: &str) -> String {
    let page = caller.get(&format!("{path}?limit=1")).await;
    page.json["nextCursor"].as_str().unwrap_or_else(|| panic!("there is a second page: {page:?}")).to_owned()
}

/// Asserts that a cursor is rejected, and not repeated in the answer.
async fn check_refused(caller: &Caller<'_>, path: &str, cursor: &str) {
    let answer = caller.get(&format!("{path}?cursor={cursor}")).await;
    assert_refused(&answer, (400, "invalid_cursor"), &format!("{path} {cursor:?}"));
    // Any answer may contain a shorter text by chance.
    assert!(cursor.len() < 8 || !answer.text.contains(cursor), "{answer:?}");
}

/// Creates a user with two pages in both listings.
async fn with_two_pages(app: &TestApp) -> Caller<'_> {
    let user = app.user().await;
    for name in ["a.png", "b.png"] {
        user.upload(name, "image/png", &unique_png()).await;
        assert_eq!(user.open_upload(name, "image/png", &unique_png()).await.status, 201);
    }
    user
}

#[tokio::test]
async fn cursor_is_valid_only_for_its_listing_and_user() {
    let app = TestApp::start().await;
    let (ada, eve) = (with_two_pages(&app).await, with_two_pages(&app).await);
    for (path, other) in [(GALLERY, PENDING), (PENDING, GALLERY)] {
        let good = cursor(&ada, path).await;
        let page = ada.get(&format!("{path}?cursor={good}")).await;
        assert_eq!((page.status, page.json.get("nextCursor")), (200, None), "{page:?}");
        check_refused(&ada, other, &good).await;
        check_refused(&eve, path, &good).await;
        check_refused(&eve, other, &good).await;
    }
}

#[tokio::test]
async fn altered_cursors_are_rejected() {
    let app = TestApp::start().await;
    let ada = with_two_pages(&app).await;
    for path in [GALLERY, PENDING] {
        let good = cursor(&ada, path).await;
        let bytes = URL_SAFE_NO_PAD.decode(&good).expect("the listing's cursors are base64url");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            check_refused(&ada, path, &URL_SAFE_NO_PAD.encode(flipped)).await;
        }
        for position in 0..good.len() {
            let mut flipped = good.clone().into_bytes();
            flipped[position] = if flipped[position] == b'A' { b'B' } else { b'A' };
            check_refused(&ada, path, std::str::from_utf8(&flipped).unwrap()).await;
        }
        for end in [0, 1, 8, good.len() - 1] {
            check_refused(&ada, path, &good[..end]).await;
        }
        let (twice, longer, padded) = (format!("{good}{good}"), format!("{good}A"), format!("{good}="));
        for wrong in [
            &twice,
            &longer,
            &padded,
            CANARY,
            "null",
            "%00",
            "%ff%fe",
            // {"id":"canary"} in base64.
            "eyJpZCI6ImNhbmFyeSJ9",
            "01980a3c-5b7e-7c11-9f3a-2d4e6b8c0a1f",
        ] {
            check_refused(&ada, path, wrong).await;
        }
        check_refused(&ada, path, &"A".repeat(4000)).await;
        // Cursors of the right length, 32 bytes, with a wrong checksum.
        for byte in [0, 0x7f, 0xff] {
            check_refused(&ada, path, &URL_SAFE_NO_PAD.encode([byte; 32])).await;
        }
        assert_eq!(ada.get(&format!("{path}?cursor={good}")).await.status, 200, "the unchanged cursor is still valid");
    }
}
