//! The gallery page at `/`, from `src/web`: plain files inside the binary, no build step. Its uploads are made by the modules of
//! `clients/js/src`, which are also the npm package; the page imports them from `./valet-upload/`.
//!
//! Its modules import one another by relative paths, so all of them are served under one path that contains the hash of all
//! contents: browsers cache them for ever, and a new release has a new path.

use poem::{Endpoint, Response, Route, get, http::header};

use super::entity_tags;
use crate::{config::Switches, model::Sha256};

/// `Cache-Control` of files whose path changes with their content.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// The page, with placeholders in braces.
const PAGE: &str = include_str!("../web/index.html");

/// Lists files of `src/web` and modules of `clients/js/src`, each with its path below the assets and its content.
macro_rules! files {
    ($($name:literal)* ; $($module:literal)*) => { &[
        $(($name, include_str!(concat!("../web/", $name))),)*
        $((concat!("valet-upload/", $module), include_str!(concat!("../../clients/js/src/", $module)))),*
    ] };
}

/// All files but the page: path below the assets, and content.
const FILES: &[(&str, &str)] = files! {
    "style.css" "icon.svg"
    "account.js" "address.js" "api.js" "app.js" "changes.js" "dom.js" "files.js" "gallery.js" "grid.js" "justified-layout.js"
    "lightbox.js" "messages.js" "session.js" "sign-in.js" "tabs.js" "undo-delete.js" "upload-list.js";
    "api.js" "events.js" "http.js" "image-processing.js" "messages.js" "pending-files.js" "retry.js" "s3-put.js" "sha256.js"
    "storage.js" "thumbhash.js" "upload.js" "uploader.js" "worker-pool.js" "worker.js"
};

/// Origins from which the page shows images.
#[derive(Debug)]
pub struct ImageOrigins<'a> {
    /// Origin of the object store.
    pub bucket: &'a str,
    /// Origin of the server that makes previews.
    pub previews: Option<String>,
}

/// Adds the page and its files.
pub fn mount(routes: Route, origins: &ImageOrigins<'_>, switches: Switches) -> Route {
    let policy = content_security_policy(origins);
    let assets = format!("/assets/{}", hash_files(&policy));
    let page = PAGE.replace("{preloads}", &preloads()).replace("{assets}", &assets);
    let on_or_off = |is_on| if is_on { "on" } else { "off" };
    let page = page.replace("{signup}", on_or_off(switches.signup)).replace("{docs}", on_or_off(switches.docs));
    let page_endpoint = file(page, "text/html; charset=utf-8", "no-cache", &policy);
    FILES.iter().fold(routes.at("/", get(page_endpoint)), |routes, (name, content)| {
        routes.at(format!("{assets}/{name}"), get(file((*content).to_owned(), media_type(name), IMMUTABLE, &policy)))
    })
}

/// Returns the policy that allows only the page's own files, requests to the bucket, and previews. Placeholders and previews are
/// drawn from memory (`blob:`).
fn content_security_policy(ImageOrigins { bucket, previews }: &ImageOrigins<'_>) -> String {
    let (bucket, previews) =
        (source(bucket), previews.as_deref().map(|origin| format!(" {}", source(origin))).unwrap_or_default());
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: {bucket}{previews}; connect-src 'self' {bucket}; \
         worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// Returns the source that allows an origin. The grammar of policies has no IPv6 addresses: the source of such an origin is its
/// scheme, which allows every origin with that scheme.
fn source(origin: &str) -> &str {
    if origin.contains('[') { origin.split_inclusive(':').next().unwrap_or(origin) } else { origin }
}

/// Returns the preload links of all modules: without them a browser would find the modules one import after the other.
fn preloads() -> String {
    let scripts = FILES.iter().filter(|(name, _)| name.ends_with(".js") && !matches!(*name, "app.js" | "valet-upload/worker.js"));
    scripts.map(|(name, _)| format!("<link rel=\"modulepreload\" href=\"{{assets}}/{name}\">\n")).collect()
}

/// Returns the hash of all files and of their policy.
fn hash_files(policy: &str) -> String {
    hash(FILES.iter().flat_map(|(name, content)| [*name, " ", *content]).chain([policy]))
}

/// Returns a short digest of texts, for names of files.
fn hash<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    hex::encode(&Sha256::of(texts).to_bytes()[..8])
}

/// Returns the media type by the extension of a name.
fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    }
}

/// Serves a file from memory.
fn file(
    content: String,
    content_type: &'static str,
    cache_control: &'static str,
    policy: &str,
) -> impl Endpoint<Output = Response> + use<> {
    let etag = format!("\"{}\"", hash([content.as_str(), policy].into_iter()));
    let (content, policy) = (bytes::Bytes::from(content), policy.to_owned());
    poem::endpoint::make_sync(move |request| {
        let response =
            Response::builder().header(header::CACHE_CONTROL, cache_control).header(header::CONTENT_SECURITY_POLICY, &policy);
        entity_tags::file_response(&request, response, &etag, content_type, content.clone())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_served_and_every_import_exists() {
        let list_folder = |folder: &str| {
            let entries = std::fs::read_dir(format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let mut existing = list_folder("src/web");
        // Modules that the page does not import: other interfaces of the package, and its types.
        let unused = ["abort-reasons.js", "capacitor.js", "expo.js", "index.js", "native.js", "react.js", "types.js", "uppy.js"];
        let modules = list_folder("clients/js/src").into_iter().filter(|name| !unused.contains(&name.as_str()));
        existing.extend(modules.map(|name| format!("valet-upload/{name}")));
        // `swagger_ui` serves its folder.
        existing.retain(|name| name != "index.html" && name != "swagger-ui");
        existing.sort();
        let mut served: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        served.sort();
        assert_eq!(existing, served);
        for (name, content) in FILES {
            let folder = name.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
            for import in content.split("from \"./").skip(1).map(|rest| rest.split('"').next().unwrap()) {
                let import = format!("{folder}{import}");
                assert!(served.contains(&import), "{name} imports {import}");
            }
        }
    }

    #[test]
    fn the_policy_allows_only_the_bucket_and_previews() {
        let policy = |bucket, previews: Option<&str>| {
            content_security_policy(&ImageOrigins { bucket, previews: previews.map(str::to_owned) })
        };
        assert!(policy("https://b.s3.example", None).contains("connect-src 'self' https://b.s3.example; "));
        let local = policy("http://[::1]:9000", None);
        assert!(local.contains("img-src 'self' blob: http:; "), "{local}");
        let with_previews = policy("https://b.s3.example", Some("https://img.example"));
        assert!(with_previews.contains("img-src 'self' blob: https://b.s3.example https://img.example; "), "{with_previews}");
        assert!(
            !PAGE.contains("style=\"") && !PAGE.contains("onclick") && !PAGE.contains("https://"),
            "no inline code, nothing from elsewhere"
        );
    }
}
