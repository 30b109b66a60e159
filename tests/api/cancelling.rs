//! Covers `onlyPending`: cancelling an upload never deletes an image.
//!
//! Routes: DELETE /api/images/{id}.

use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;

use super::app::{TestApp, unique_png};

/// While the user cancels, an upload of the same bytes by another tab or device may become an image.
#[tokio::test]
async fn cancelling_an_upload_never_deletes_an_image() {
    let app = TestApp::start().await;
    let (ada, bob) = (app.user().await, app.user().await);
    let bytes = unique_png();
    let image = ada.upload("a.png", "image/png", &bytes).await;
    let path = format!("/api/images/{}", image["id"].as_str().unwrap());
    let only_pending = format!("{path}?onlyPending=true");
    assert_eq!(ada.delete(&only_pending).await.problem(), (409, "upload_complete"));
    assert_eq!(ada.get(&path).await.status, 200, "the image is kept");
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["bytes"], bytes.len());
    assert_eq!(bob.delete(&only_pending).await.status, 404, "another user's image");
    let malformed = ada.delete(&format!("{path}?onlyPending=yes")).await;
    assert_eq!((malformed.status, &malformed.json["errors"][0]["message"]), (400, &json!("must be true or false")));
    assert_eq!(ada.delete(&format!("{path}?onlyPending=false")).await.status, 204, "as without the parameter");
    assert_eq!(ada.delete(&only_pending).await.status, 204, "the deleted image does not prevent the cancel");

    let open = ada.open_upload("b.png", "image/png", &unique_png()).await;
    let only_pending = format!("/api/images/{}?onlyPending=true", open.id());
    assert_eq!(ada.delete(&only_pending).await.status, 204);
    assert_eq!(ada.delete(&only_pending).await.status, 204, "a repeat, while the tombstone exists");
    assert_eq!(ada.get("/api/images/pending").await.json["uploads"], json!([]));
    app.sweep(OffsetDateTime::now_utc() + Duration::from_secs(48 * 3600)).await;
    assert_eq!(ada.delete(&only_pending).await.status, 404, "the tombstone has expired");
    assert_eq!(ada.get("/api/auth/me").await.json["usage"]["pending"], 0);
    app.audit().await;
}

/// A cancel and a confirm of one upload at the same time: either the cancel gets 409, the confirm 200 and the image exists, or the
/// cancel gets 204, the confirm fails and no image exists.
#[tokio::test]
async fn cancel_and_confirm_agree() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for _ in 0..12 {
        let bytes = unique_png();
        let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
        assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
        let path = format!("/api/images/{}", ticket.id());
        let only_pending = format!("{path}?onlyPending=true");
        let (confirmed, cancelled) = tokio::join!(ada.confirm(ticket.id()), ada.delete(&only_pending));
        assert!(matches!(cancelled.status, 204 | 409), "{cancelled:?}");
        let is_kept = ada.get(&path).await.status == 200;
        assert_eq!((is_kept, is_kept), (cancelled.status == 409, confirmed.status == 200), "{cancelled:?} {confirmed:?}");
    }
    app.audit().await;
}
