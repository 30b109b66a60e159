//! The hook to which the store sends its notifications, on a separate address (`HOOKS_BIND`). No browser page may call it.

use std::time::Duration;

use poem::{
    Body, Endpoint, EndpointExt, IntoEndpoint, IntoResponse, Response, Route,
    error::ReadBodyError,
    handler,
    http::{StatusCode, header},
    post,
    web::{Data, Path},
};

use super::middleware::security_headers::set_security_headers;
use crate::{model::s3_event::MAX_NOTIFICATION_BYTES, state::AppState};

/// Time limit for receiving and processing a notification: senders give up after five to thirty seconds.
const DEADLINE: Duration = Duration::from_secs(10);
/// Seconds after which a sender may repeat a notification.
const RETRY_AFTER: &str = "5";

/// Returns the endpoint of `HOOKS_BIND`.
#[must_use]
pub fn endpoint(app: AppState) -> impl Endpoint<Output = Response> + 'static {
    let routes = Route::new().at("/hooks/s3/:token", post(receive));
    routes.data(app).into_endpoint().after(|response: poem::Result<Response>| async move {
        let mut response = response.unwrap_or_else(poem::Error::into_response);
        set_security_headers(response.headers_mut());
        Ok(response)
    })
}

/// Receives a notification. The response states only whether to send the notification again; it is 204 also if every record is
/// ignored.
#[handler]
async fn receive(Path(token): Path<String>, body: Body, app: Data<&AppState>) -> Response {
    let store_notifications = &app.valet.store_notifications;
    if !store_notifications.is_hook_token(&token) {
        return StatusCode::NOT_FOUND.into();
    }
    let received = tokio::time::timeout(DEADLINE, async {
        match body.into_bytes_limit(MAX_NOTIFICATION_BYTES).await {
            Ok(notification) => Ok(store_notifications.receive(&notification).await),
            Err(ReadBodyError::PayloadTooLarge) => Err(StatusCode::PAYLOAD_TOO_LARGE),
            Err(_) => Err(StatusCode::BAD_REQUEST),
        }
    });
    match received.await {
        Ok(Ok(Ok(()))) => StatusCode::NO_CONTENT.into(),
        Ok(Err(status)) => status.into(),
        Ok(Ok(Err(_))) | Err(_) => Response::builder()
            .status(StatusCode::SERVICE_UNAVAILABLE)
            .header(header::RETRY_AFTER, RETRY_AFTER)
            .finish()
            .into_response(),
    }
}
