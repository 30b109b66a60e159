//! Endpoints for operators' tools, on a separate address (`ADMIN_BIND`) that clients do not reach: metrics, and health checks
//! without the API's limits.

use poem::{
    Endpoint, EndpointExt, IntoEndpoint, IntoResponse, Response, Route, get, handler,
    http::{StatusCode, header},
    web::Data,
};

use super::middleware::security_headers::set_security_headers;
use crate::{metrics, state::AppState};

/// Returns the endpoint of `ADMIN_BIND`.
#[must_use]
pub fn endpoint(app: AppState) -> impl Endpoint<Output = Response> + 'static {
    let routes = Route::new().at("/metrics", get(scrape)).at("/livez", get(alive)).at("/readyz", get(ready));
    routes.data(app).into_endpoint().after(|response: poem::Result<Response>| async move {
        let mut response = response.unwrap_or_else(poem::Error::into_response);
        set_security_headers(response.headers_mut());
        Ok(response)
    })
}

#[handler]
fn scrape(app: Data<&AppState>) -> Response {
    Response::builder().header(header::CONTENT_TYPE, metrics::MEDIA_TYPE).body(app.metrics())
}

#[handler]
fn alive() -> &'static str {
    "ok"
}

#[handler]
async fn ready(app: Data<&AppState>) -> Response {
    match app.readiness().await {
        Ok(()) => "ok".into_response(),
        Err(part) => part.with_status(StatusCode::SERVICE_UNAVAILABLE).into_response(),
    }
}
