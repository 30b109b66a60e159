//! Leaving without a failed request: while a server that is to stop still serves, each answer ends its connection.
//!
//! A connection that a balancer keeps would otherwise be closed at a moment when a request may be on its way.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use poem::{
    Endpoint, EndpointExt, Response,
    http::{HeaderValue, header},
};

/// The same endpoint, whose answers close their connections once the server is stopping.
pub fn announced<E>(endpoint: E, stopping: Arc<AtomicBool>) -> impl Endpoint<Output = Response> + 'static
where
    E: Endpoint<Output = Response> + 'static,
{
    endpoint.after(move |answer: poem::Result<Response>| {
        let is_stopping = stopping.load(Ordering::Relaxed);
        async move {
            let mut answer = answer?;
            if is_stopping {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer)
        }
    })
}
