//! `/docs`: Swagger UI, served from the binary, and `/openapi.json`. Scripts and styles are separate files, so that the page's
//! content security policy needs no exception for scripts.

use std::sync::{LazyLock, OnceLock};

use bytes::Bytes;
use poem::{Endpoint, Response, Route, get, handler, http::header, web::Redirect};

use super::{entity_tags, openapi};
use crate::{config::Switches, model::Sha256};

/// Content security policy: the UI sets inline styles and draws its icons from data URLs; "try it out" calls only this API.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page, which loads the UI.
const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Valet API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<script src="/docs/swagger-ui.js" defer></script>
<script src="/docs/start.js" defer></script>
</head>
<body><div id="ui"></div></body>
</html>
"#;

/// Script that starts the UI. It does not set `persistAuthorization`, which would keep a token in the local storage of the gallery
/// page's origin.
const START: &str = "SwaggerUIBundle({ url: '/openapi.json', dom_id: '#ui', deepLinking: true, displayRequestDuration: true, \
    tryItOutEnabled: true });\n";

/// Adds the UI's page and files, and the document.
pub fn mount(routes: Route, switches: Switches) -> Route {
    let document: fn() -> Bytes = if switches.uppy { || DOCUMENT.clone() } else { || DOCUMENT_WITHOUT_UPPY.clone() };
    routes
        .at("/docs", get(file(|| Bytes::from_static(PAGE.as_bytes()), "text/html; charset=utf-8")))
        .at("/docs/", get(redirect_to_docs))
        .at("/docs/swagger-ui.css", get(file(|| Bytes::from_static(STYLE), "text/css; charset=utf-8")))
        .at("/docs/swagger-ui.js", get(file(|| Bytes::from_static(SCRIPT), "text/javascript; charset=utf-8")))
        .at("/docs/start.js", get(file(|| Bytes::from_static(START.as_bytes()), "text/javascript; charset=utf-8")))
        .at("/openapi.json", get(file(document, "application/json")))
}

/// Redirects to the page of the documentation.
#[handler]
fn redirect_to_docs() -> Redirect {
    Redirect::permanent("/docs")
}

/// Serves a file of Swagger UI.
fn file(content: fn() -> Bytes, content_type: &'static str) -> impl Endpoint<Output = Response> {
    // Computed at the first request, at which the document is rendered, too.
    let etag = OnceLock::new();
    poem::endpoint::make_sync(move |request| {
        let bytes = content();
        let etag = etag.get_or_init(|| format!("\"{}\"", hex::encode(&Sha256::of([&bytes]).to_bytes()[..8])));
        let response =
            Response::builder().header(header::CACHE_CONTROL, "no-cache").header(header::CONTENT_SECURITY_POLICY, POLICY);
        entity_tags::file_response(&request, response, etag, content_type, bytes)
    })
}

/// Styles of swagger-ui-dist, of the version and hash in `.ci/swagger-ui`.
const STYLE: &[u8] = include_bytes!("../web/swagger-ui/swagger-ui.css");
/// Script of swagger-ui-dist.
const SCRIPT: &[u8] = include_bytes!("../web/swagger-ui/swagger-ui-bundle.js");

/// The document, rendered at the first request, because most servers never serve it.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| openapi::text().into());
/// The document with `UPPY=off`.
static DOCUMENT_WITHOUT_UPPY: LazyLock<Bytes> = LazyLock::new(|| openapi::text_without_uppy().into());
