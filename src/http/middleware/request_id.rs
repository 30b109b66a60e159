//! Request ids: the caller's own where it is plain, else a new UUID. Logs, problems and the header `x-request-id` carry it.

use poem::{
    Endpoint, EndpointExt, Request, Response,
    http::{HeaderMap, HeaderValue},
};
use uuid::Uuid;

const REQUEST_ID: &str = "x-request-id";
/// Longest id that is taken over from the caller.
const MAX_LENGTH: usize = 64;

/// The id of a request, in its data.
#[derive(Debug, Clone, Default)]
pub struct RequestId(pub String);

impl RequestId {
    /// Returns the id of a request; empty outside [`with_request_ids`].
    #[must_use]
    pub fn of(request: &Request) -> Self {
        request.data::<Self>().cloned().unwrap_or_default()
    }
}

/// Gives every request a [`RequestId`], and every response its header.
pub fn with_request_ids<E>(endpoint: E) -> impl Endpoint<Output = Response> + 'static
where
    E: Endpoint<Output = Response> + 'static,
{
    endpoint.around(|next, mut request| async move {
        let id = choose(&request);
        request.set_data(RequestId(id.clone()));
        let mut response = next.get_response(request).await;
        set_request_id(response.headers_mut(), &id);
        Ok(response)
    })
}

/// Sets the header `x-request-id`.
pub fn set_request_id(headers: &mut HeaderMap, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
}

/// Returns the caller's own id when it is plain enough for a log line and a header, else a new one.
fn choose(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_plain = |id: &&str| {
        (1..=MAX_LENGTH).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    given.filter(is_plain).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}
