//! Settings of imgproxy, which makes previews: its address, key and salt, and options.

use url::Url;

use super::{is_trustworthy_url, reader::Reader};
use crate::signer::{Imgproxy, ImgproxyKey};

/// Minimum bytes of the key and of the salt.
const MIN_KEY_BYTES: usize = 16;
/// Options of previews besides their size: quality 80, without metadata, and rotated by the EXIF orientation.
const DEFAULT_OPTIONS: &str = "q:80/sm:1/ar:1";
/// Options that Valet sets itself: size, expiry, source and format of the URL.
const OWN_OPTIONS: [&str; 17] = [
    "rs",
    "resize",
    "s",
    "size",
    "rt",
    "resizing_type",
    "w",
    "width",
    "h",
    "height",
    "el",
    "enlarge",
    "exp",
    "expires",
    "plain",
    "enc",
    "raw",
];

impl Reader<'_> {
    /// Reads imgproxy's settings; `None` without them.
    pub(super) fn imgproxy(&mut self) -> Option<Imgproxy> {
        let url = self.text("IMGPROXY_URL");
        let key = self.hex("IMGPROXY_KEY");
        let salt = self.hex("IMGPROXY_SALT");
        let options = self.imgproxy_options();
        for (name, bytes) in [("IMGPROXY_KEY", &key), ("IMGPROXY_SALT", &salt)] {
            if bytes.is_none() && (url.is_some() || self.is_set(name)) {
                self.report_invalid(name, "at least 16 bytes in hexadecimal, as imgproxy has them: `openssl rand -hex 64`");
            }
        }
        let Some(url) = url else {
            for name in ["IMGPROXY_KEY", "IMGPROXY_SALT", "IMGPROXY_PREVIEW"] {
                if self.is_set(name) {
                    self.report_invalid(name, "omitted while IMGPROXY_URL is not set: it has no effect");
                }
            }
            return None;
        };
        let base_url = url.strip_suffix('/').unwrap_or(&url).to_owned();
        if !is_base_url(&base_url) {
            self.report_invalid(
                "IMGPROXY_URL",
                "an https address such as https://img.example.com, without a query (http on loopback)",
            );
        }
        Some(Imgproxy { base_url, key: ImgproxyKey::new(&key?, &salt?), options })
    }

    /// Reads bytes in hexadecimal; `None` if they are malformed or too few.
    fn hex(&self, name: &str) -> Option<Vec<u8>> {
        let text = self.text(name)?;
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let bytes: Option<Vec<_>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
        bytes.filter(|bytes| bytes.len() >= MIN_KEY_BYTES)
    }

    /// Reads the options of previews.
    fn imgproxy_options(&mut self) -> String {
        let Some(text) = self.text("IMGPROXY_PREVIEW") else { return DEFAULT_OPTIONS.to_owned() };
        let is_option = |option: &str| {
            let name = option.split(':').next().unwrap_or_default();
            let is_plain = option.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:.-,".contains(&b));
            is_plain && option.contains(':') && !name.is_empty() && !OWN_OPTIONS.contains(&name)
        };
        if !text.split('/').all(is_option) {
            self.report_invalid(
                "IMGPROXY_PREVIEW",
                "processing options such as q:80/sm:1/ar:1, without size, expiry and source, which Valet sets",
            );
        }
        text
    }
}

/// Returns whether paths can be appended to this address, and clients can use it safely.
fn is_base_url(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| is_trustworthy_url(&url))
        && url.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\?#@%".contains(&b))
        && !url.ends_with('/')
}

#[cfg(test)]
mod tests {
    use super::is_base_url;

    #[test]
    fn base_urls_are_addresses_that_clients_may_use() {
        for url in ["https://img.example.com", "https://img.example.com:8443/previews", "http://127.0.0.1:8080"] {
            assert!(is_base_url(url), "{url}");
        }
        for url in [
            "img.example.com",
            "http://img.example.com",
            "https://u:p@img.example.com",
            "https://img.example.com/?a",
            "https://",
            "https://a b",
        ] {
            assert!(!is_base_url(url), "{url}");
        }
    }
}
