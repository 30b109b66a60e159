//! The gallery page at `/`, from `src/web`: plain files inside the binary, no build step.
//!
//! Its modules import one another by relative paths, so all of them live under one path that holds the hash of all their
//! contents: browsers keep them for ever, and a new release is a new path.

use aws_lc_rs::digest;
use poem::{Endpoint, Response, Route, get, http::header};

use crate::config::Switches;

/// For ever: the path changes with the content.
const FOREVER: &str = "public, max-age=31536000, immutable";

const PAGE: &str = include_str!("../web/index.html");

macro_rules! files {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("../web/", $name)))),*] };
}

const FILES: &[(&str, &str)] = files! {
    "style.css" "icon.svg"
    "account.js" "address.js" "app.js" "api.js" "darkroom.js" "dom.js" "entrance.js" "files.js" "gallery.js" "grid.js" "http.js" "lightbox.js" "patience.js"
    "put.js" "rows.js" "session.js" "sha256.js" "shelf.js" "storage.js" "tabs.js" "thumbhash.js" "trash.js" "tray.js" "upload.js" "uploader.js" "words.js"
    "worker.js" "workshop.js"
};

/// The page and its files. `bucket` is the origin that the bytes go to and come from.
pub fn routes(route: Route, bucket: &str, switches: Switches) -> Route {
    let policy = policy(bucket);
    let assets = format!("/assets/{}", version(&policy));
    let page = PAGE.replace("{preloads}", &preloads()).replace("{assets}", &assets);
    let word = |is_on| if is_on { "on" } else { "off" };
    let page = page.replace("{signup}", word(switches.signup)).replace("{docs}", word(switches.docs));
    let entry = file(page, "text/html; charset=utf-8", "no-cache", &policy);
    FILES.iter().fold(route.at("/", get(entry)), |route, (name, content)| {
        route.at(format!("{assets}/{name}"), get(file((*content).to_owned(), media_type(name), FOREVER, &policy)))
    })
}

/// Nothing but this page's own files, and the bucket for bytes. Placeholders and previews are drawn from memory (`blob:`).
fn policy(bucket: &str) -> String {
    // The policy's grammar has no IPv6 addresses.
    let bucket = if bucket.contains('[') { bucket.split_inclusive(':').next().unwrap_or(bucket) } else { bucket };
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: {bucket}; connect-src 'self' {bucket}; \
         worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// Without these a browser would find the modules one import after the other.
fn preloads() -> String {
    let scripts = FILES.iter().filter(|(name, _)| name.ends_with(".js") && !matches!(*name, "app.js" | "worker.js"));
    scripts.map(|(name, _)| format!("<link rel=\"modulepreload\" href=\"{{assets}}/{name}\">\n")).collect()
}

/// A hash of all that is kept: the files, and the policy they come with.
fn version(policy: &str) -> String {
    hash(FILES.iter().flat_map(|(name, content)| [*name, " ", *content]).chain([policy]))
}

fn hash<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    texts.for_each(|text| context.update(text.as_bytes()));
    context.finish().as_ref()[..8].iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    }
}

fn file(
    content: String,
    content_type: &'static str,
    cached: &'static str,
    policy: &str,
) -> impl Endpoint<Output = Response> + use<> {
    let etag = format!("\"{}\"", hash([content.as_str(), policy].into_iter()));
    let (content, policy) = (bytes::Bytes::from(content), policy.to_owned());
    poem::endpoint::make_sync(move |request| {
        let response = Response::builder()
            .header(header::CACHE_CONTROL, cached)
            .header(header::ETAG, &etag)
            .header(header::CONTENT_SECURITY_POLICY, &policy);
        let known = request.headers().get(header::IF_NONE_MATCH).is_some_and(|known| known == etag.as_str());
        if known {
            return response.status(poem::http::StatusCode::NOT_MODIFIED).finish();
        }
        response.content_type(content_type).body(poem::Body::from_bytes(content.clone()))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_served_and_every_import_found() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/web");
        let mut there: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        // The folder of Swagger UI is served by `docs`.
        there.retain(|name| name != "index.html" && name != "swagger-ui");
        there.sort();
        let mut served: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        served.sort();
        assert_eq!(there, served);
        for (name, content) in FILES {
            for import in content.split("from \"./").skip(1).map(|rest| rest.split('"').next().unwrap()) {
                assert!(served.iter().any(|served| served == import), "{name} imports {import}");
            }
        }
    }

    #[test]
    fn the_policy_names_the_bucket_alone() {
        assert!(policy("https://b.s3.example").contains("connect-src 'self' https://b.s3.example; "));
        assert!(policy("http://[::1]:9000").contains("img-src 'self' blob: http:; "), "{}", policy("http://[::1]:9000"));
        assert!(
            !PAGE.contains("style=\"") && !PAGE.contains("onclick") && !PAGE.contains("https://"),
            "no inline code, nothing from elsewhere"
        );
    }
}
