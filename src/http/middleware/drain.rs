//! Drains connections before the server stops: every response asks its client to close the connection.
//!
//! Otherwise the server would close connections that a load balancer keeps open, while a request may be on its way.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use poem::{
    Endpoint, EndpointExt, Response,
    http::{HeaderValue, header},
};

/// Adds `Connection: close` to every response once `stopping` is set.
pub fn close_when_stopping<E>(endpoint: E, stopping: Arc<AtomicBool>) -> impl Endpoint<Output = Response> + 'static
where
    E: Endpoint<Output = Response> + 'static,
{
    endpoint.after(move |response: poem::Result<Response>| {
        let is_stopping = stopping.load(Ordering::Relaxed);
        async move {
            let mut response = response?;
            if is_stopping {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        }
    })
}
