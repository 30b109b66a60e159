//! Admits requests: checks their format, reads their bodies, limits the number that is handled at once, and sets their deadlines.
//! Requests beyond a limit are rejected at once, because a growing queue would delay all.

use std::sync::Arc;

use poem::{Endpoint, EndpointExt, IntoResponse, Response};

use super::{permits::Permits, request_body::read_body, request_format};
use crate::{
    config::TrustedProxies,
    http::{
        client, operation,
        problem::{Code, Problem, UNKNOWN_OUTCOME},
        route_table::RouteTable,
    },
    model::NetworkPrefix,
};

/// Admits at most `max_requests` requests at once, each within the limits of its operation.
pub fn with_admission<E>(
    endpoint: E,
    proxies: Arc<TrustedProxies>,
    routes: Arc<RouteTable>,
    max_requests: usize,
) -> impl Endpoint<Output = Response> + 'static
where
    E: Endpoint + 'static,
{
    let permits = Arc::new(Permits::new(max_requests));
    endpoint.around(move |next, mut request| {
        let network = NetworkPrefix::site(client::address(&request, &proxies));
        let operation = routes.find(request.uri().path()).and_then(|route| route.operation(request.method()));
        let permits = permits.clone();
        async move {
            request_format::check(&request)?;
            let _body_permit = read_body(&mut request, operation.map(|operation| operation.body), &permits, network).await?;
            // After the body has arrived, so that slow bodies hold no permit.
            let _request_permit = permits.acquire(request.uri().path(), operation, network)?;
            let deadline = operation.map_or(operation::SHORT_DEADLINE, |operation| operation.deadline);
            // Boxed, because a future is copied whole each time that it moves, here into each scope.
            let handler = Box::pin(next.call(request));
            match tokio::time::timeout(deadline, permits.scope(network, handler)).await {
                Ok(response) => Ok(response?.into_response()),
                Err(_) => Err(Problem::new(Code::Timeout, UNKNOWN_OUTCOME).into()),
            }
        }
    })
}
