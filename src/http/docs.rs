//! The routes: the API, and `/docs`: Swagger UI, served from the binary. Scripts and styles are files of their own, so that the page's
//! content security policy needs no exception for scripts.

use std::sync::Arc;

use poem::{Endpoint, Response, Route, get, handler, http::header, web::Redirect};

use super::openapi;

/// The UI sets inline styles and draws its icons from data URLs; "try it out" calls this API alone.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

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

const START: &str = "SwaggerUIBundle({ url: '/openapi.json', dom_id: '#ui', deepLinking: true, persistAuthorization: true, \
    displayRequestDuration: true, tryItOutEnabled: true });\n";

/// The API, the UI's page and its files, and the document.
pub fn routes(api: impl Endpoint<Output = Response> + 'static) -> Route {
    let (style, script) = assets();
    // Not nested at the root, which would shadow it.
    let api = Arc::new(api);
    Route::new()
        .nest_no_strip("/api", api.clone())
        .nest_no_strip("/uppy", api.clone())
        .at("/livez", api.clone())
        .at("/readyz", api)
        .at("/docs", get(file(PAGE.to_owned(), "text/html; charset=utf-8")))
        .at("/docs/", get(to_docs))
        .at("/docs/swagger-ui.css", get(file(style, "text/css; charset=utf-8")))
        .at("/docs/swagger-ui.js", get(file(script, "text/javascript; charset=utf-8")))
        .at("/docs/start.js", get(file(START.to_owned(), "text/javascript; charset=utf-8")))
        .at("/openapi.json", get(file(openapi::text(), "application/json")))
}

/// As people type it.
#[handler]
fn to_docs() -> Redirect {
    Redirect::permanent("/docs")
}

fn file(content: String, content_type: &'static str) -> impl Endpoint<Output = Response> {
    let content = bytes::Bytes::from(content);
    poem::endpoint::make_sync(move |_| {
        Response::builder()
            .content_type(content_type)
            .header(header::CACHE_CONTROL, "no-cache")
            .header(header::CONTENT_SECURITY_POLICY, POLICY)
            .body(poem::Body::from_bytes(content.clone()))
    })
}

/// The style and the script inside the page that poem-openapi makes: it embeds the UI but gives out the whole page only.
fn assets() -> (String, String) {
    let page = openapi::service().swagger_ui_html();
    let between = |open: &str, close: &str| {
        let from = page.find(open).map(|at| at + open.len())?;
        let to = page[from..].find(close)? + from;
        Some(page[from..to].to_owned())
    };
    let style = between("<style charset=\"UTF-8\">", "</style>").unwrap_or_default();
    let script = between("<script charset=\"UTF-8\">", "</script>").unwrap_or_default();
    (style, script)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_ui_is_found_in_the_page_that_embeds_it() {
        let (style, script) = super::assets();
        assert!(style.len() > 100_000 && style.contains(".swagger-ui"), "{}", style.len());
        assert!(script.len() > 1_000_000 && script.contains("SwaggerUIBundle"), "{}", script.len());
    }
}
