//! gzip for clients that accept it: JSON of more than a kilobyte about images, and the OpenAPI document.
//!
//! A page of 50 presigned URLs shrinks to a fifth. Only gzip: every client that accepts a coding accepts it, and it needs no C
//! library. Only the fastest level: the next ones take twice the time to save a tenth of the bytes.
//!
//! Compressing secrets together with text that an attacker chooses reveals the secrets by the length (BREACH). That takes requests
//! which the attacker's page sends with the victim's authority. Here this is a bearer token, which no other page has and no
//! browser adds by itself, and these responses repeat nothing of a request but what its own sender may read. Responses of
//! `/api/auth` contain tokens; they are never compressed.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use poem::{
    Endpoint, EndpointExt, IntoResponse, Response, Result,
    http::{HeaderMap, HeaderValue, StatusCode, header},
};

/// Minimum bytes of a response that is compressed: smaller ones fit into one packet.
const MIN_BYTES: usize = 1024;

/// Compresses the responses of `/api/images/` and `/openapi.json`.
pub fn with_compression(endpoint: impl Endpoint + 'static) -> impl Endpoint<Output = Response> + 'static {
    endpoint.around(|next, request| async move {
        let path = request.uri().path();
        if !path.starts_with("/api/images/") && path != "/openapi.json" {
            return Ok(next.call(request).await?.into_response());
        }
        let is_accepted = accepts_gzip(request.headers());
        let mut response = next.call(request).await?.into_response();
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
        if is_accepted && response.status() == StatusCode::OK { compress(response).await } else { Ok(response) }
    })
}

/// Compresses the body, unless it has less than [`MIN_BYTES`].
async fn compress(response: Response) -> Result<Response> {
    let (mut parts, body) = response.into_parts();
    let plain = body.into_bytes().await?;
    if plain.len() < MIN_BYTES {
        return Ok(Response::from_parts(parts, plain.into()));
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 3), Compression::fast());
    let Ok(packed) = encoder.write_all(&plain).and_then(|()| encoder.finish()) else {
        // Writing to memory does not fail.
        return Ok(Response::from_parts(parts, plain.into()));
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Ok(Response::from_parts(parts, packed.into()))
}

/// Returns whether `Accept-Encoding` has gzip, or `*`, with a weight above zero; gzip's own weight takes precedence (RFC 9110
/// section 12.5.3).
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|field| field.to_str().ok());
    let (mut gzip, mut wildcard) = (None, None);
    for coding in fields.flat_map(|field| field.split(',')) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|text| text.parse::<f32>().ok()).unwrap_or(0.0);
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => gzip = Some(weight > 0.0),
            "*" => wildcard = Some(weight > 0.0),
            _ => {}
        }
    }
    gzip.or(wildcard).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_where_it_is_accepted() {
        let accepts = |field: &'static str| {
            accepts_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(field))]))
        };
        for wanted in ["gzip", "br, GZIP;q=0.5", "deflate, *", "x-gzip", "gzip;q=1.0, *;q=0"] {
            assert!(accepts(wanted), "{wanted}");
        }
        for unwanted in ["", "br", "identity", "gzip;q=0", "gzip;q=0, *", "*;q=0", "gzip;q=x"] {
            assert!(!accepts(unwanted), "{unwanted}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
