//! URLs of imgproxy (<https://docs.imgproxy.net/usage/signing_url>): `/<signature>/<options>/plain/<source>`, where the signature
//! is the HMAC-SHA256 of salt and path, in base64url without padding.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use time::OffsetDateTime;

/// Key and salt that imgproxy and this program share, both of any bytes.
#[derive(Clone)]
pub struct ImgproxyKey {
    key: hmac::Key,
    salt: Vec<u8>,
}

impl fmt::Debug for ImgproxyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImgproxyKey")
    }
}

impl ImgproxyKey {
    /// Returns the pair of a key and a salt.
    #[must_use]
    pub fn new(key: &[u8], salt: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), salt: salt.to_vec() }
    }

    /// Returns the signature of a path, which begins with a slash.
    #[must_use]
    pub fn sign(&self, path: &str) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&self.salt);
        context.update(path.as_bytes());
        URL_SAFE_NO_PAD.encode(context.sign())
    }
}

/// An imgproxy server, and the options of its pictures.
#[derive(Debug, Clone)]
pub struct Imgproxy {
    /// Address of the server, without a slash at the end.
    pub base_url: String,
    /// Key and salt.
    pub key: ImgproxyKey,
    /// Processing options besides size and expiry, such as `q:80/sm:1/ar:1`; may be empty.
    pub options: String,
}

/// An object, and the size of the picture that imgproxy makes of it.
#[derive(Debug, Clone, Copy)]
pub struct ImgproxySource<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The object's key, of characters that a URL's path may have.
    pub key: &'a str,
    /// Longest side of the picture in pixels; a smaller image is not enlarged.
    pub longest_side: u32,
}

impl Imgproxy {
    /// Returns the server's origin: the address without its path.
    #[must_use]
    pub fn origin(&self) -> &str {
        let host_at = self.base_url.find("://").map_or(0, |at| at + "://".len());
        let end = self.base_url[host_at..].find('/').map_or(self.base_url.len(), |length| host_at + length);
        &self.base_url[..end]
    }

    /// Returns the URL of a picture, valid until `expires_at` in whole seconds. The same arguments give the same URL.
    #[must_use]
    pub fn url(&self, source: ImgproxySource<'_>, expires_at: OffsetDateTime) -> String {
        let path = self.path(source, expires_at);
        format!("{}/{}{path}", self.base_url, self.key.sign(&path))
    }

    /// Returns the signed path: options, expiry and source.
    fn path(&self, ImgproxySource { bucket, key, longest_side }: ImgproxySource<'_>, expires_at: OffsetDateTime) -> String {
        let separator = if self.options.is_empty() { "" } else { "/" };
        let (options, expires) = (&self.options, expires_at.unix_timestamp());
        format!("/rs:fit:{longest_side}:{longest_side}{separator}{options}/exp:{expires}/plain/s3://{bucket}/{key}")
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    /// The vector of imgproxy's own tests (`security/signature_test.go`).
    #[test]
    fn published_vector_is_signed() {
        assert_eq!(ImgproxyKey::new(b"test-key", b"test-salt").sign("/asd"), "oWaL7QoW5TsgbuiS9-5-DI8S3Ibbo1gdB2SteJh3a20");
    }

    #[test]
    fn url_has_options_expiry_and_source_and_their_signature() {
        let key = ImgproxyKey::new(b"test-key", b"test-salt");
        let mut imgproxy = Imgproxy { base_url: "https://img.example/p".to_owned(), key, options: "q:80/sm:1".to_owned() };
        let source = ImgproxySource { bucket: "photos", key: "u/1/2", longest_side: 640 };
        let url = imgproxy.url(source, datetime!(2026-11-22 10:05:00.9 UTC));
        let path = "/rs:fit:640:640/q:80/sm:1/exp:1795341900/plain/s3://photos/u/1/2";
        assert_eq!(url, format!("https://img.example/p/{}{path}", imgproxy.key.sign(path)));
        assert_eq!(imgproxy.origin(), "https://img.example");
        imgproxy.options = String::new();
        let url = imgproxy.url(source, datetime!(2026-11-22 10:05 UTC));
        assert!(url.ends_with("/rs:fit:640:640/exp:1795341900/plain/s3://photos/u/1/2"), "{url}");
    }

    /// Compares with URLs of imgproxy's own library, as `tests/differential/imgproxy.mjs` prints them: the signature of the same
    /// path, and the URL for the same options and source. `.ci/differential` runs it.
    #[test]
    #[ignore = "needs the file of .ci/differential"]
    fn oracle_signs_the_same_urls() {
        let file = std::fs::read(std::env::var("VALET_IMGPROXY").unwrap()).unwrap();
        let cases: Vec<serde_json::Value> = serde_json::from_slice(&file).unwrap();
        assert!(cases.len() >= 40, "{} URLs", cases.len());
        for case in &cases {
            let text = |name: &str| case[name].as_str().unwrap();
            let bytes = |name: &str| hex::decode(text(name)).unwrap();
            let key = ImgproxyKey::new(&bytes("key"), &bytes("salt"));
            let (signature, rest) = text("url").strip_prefix(text("base")).unwrap()[1..].split_once('/').unwrap();
            let path = format!("/{rest}");
            assert_eq!(key.sign(&path), signature, "{case}");

            let segments = |path: &str| {
                let (options, source) = path.split_once("/plain/").unwrap();
                let mut options: Vec<_> = options[1..].split('/').map(str::to_owned).collect();
                options.sort();
                (options, source.to_owned())
            };
            let (theirs, _) = segments(&path);
            let is_other = |option: &&String| !option.starts_with("rs:") && !option.starts_with("exp:");
            let options = theirs.iter().filter(is_other).cloned().collect::<Vec<_>>().join("/");
            let imgproxy = Imgproxy { base_url: text("base").to_owned(), key, options };
            let number = |name: &str| case[name].as_i64().unwrap();
            let longest_side = u32::try_from(number("side")).unwrap();
            let source = ImgproxySource { bucket: text("bucket"), key: text("object"), longest_side };
            let expires_at = OffsetDateTime::from_unix_timestamp(number("expires")).unwrap();
            let ours = imgproxy.path(source, expires_at);
            assert_eq!(segments(&ours), segments(&path), "{case}");
            assert_eq!(imgproxy.url(source, expires_at), format!("{}/{}{ours}", text("base"), imgproxy.key.sign(&ours)));
        }
    }
}
