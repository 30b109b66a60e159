//! Request ids: the client's, if it has 1 to 64 ASCII letters, digits, `-`, `_` and `.`, else a new UUID. Logs, problems and the
//! header `x-request-id` contain the id.

use poem::{
    Endpoint, EndpointExt, Request, Response,
    http::{HeaderMap, HeaderValue},
};
use uuid::Uuid;

/// Header with the id, of requests and of responses.
const REQUEST_ID: &str = "x-request-id";
/// Maximum bytes of a client's own id.
const MAX_ID_BYTES: usize = 64;

/// Id of a request, stored in the request's extensions (`Request::data`).
#[derive(Debug, Clone, Default)]
pub struct RequestId(pub String);

impl RequestId {
    /// Returns the id of a request; empty outside [`with_request_ids`].
    #[must_use]
    pub fn of(request: &Request) -> Self {
        request.data::<Self>().cloned().unwrap_or_default()
    }
}

/// Stores a [`RequestId`] in every request, and sets the header of every response.
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

/// Returns the client's own id if its length and characters are permitted, else a new one.
fn choose(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_plain = |id: &&str| {
        (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    given.filter(is_plain).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}
