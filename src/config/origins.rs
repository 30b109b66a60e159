//! `CORS_ORIGINS`: origins whose pages may call the API, compared with the `Origin` that a browser sends.

use url::Url;

/// Origins whose pages may call the API.
#[derive(Debug, Clone, Default)]
pub struct CorsOrigins {
    /// Origins, compared byte for byte. Custom schemes such as `capacitor://localhost` are legal.
    pub exact: Vec<String>,
    /// Whether any port of localhost and the loopback addresses is permitted, for development.
    pub loopback: bool,
}

impl CorsOrigins {
    /// Returns whether a page of this origin may call the API.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        self.exact.iter().any(|known| known == origin) || (self.loopback && is_loopback(origin))
    }
}

/// Returns whether an origin is `http` or `https` on localhost or a loopback address, with any port.
fn is_loopback(origin: &str) -> bool {
    let Some(authority) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
        return false;
    };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|host| match authority.strip_prefix(host) {
        Some("") => true,
        Some(rest) => {
            rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok())
        }
        None => false,
    })
}

/// Returns whether a browser or a web view sends exactly this text as `Origin`: the ASCII serialization of an origin (WHATWG
/// HTML; RFC 6454 section 6.2) with a scheme that pages have.
pub(super) fn is_origin_header(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    match scheme {
        // `Url` normalizes hosts to lower case and punycode, and omits the scheme's default port.
        "http" | "https" => {
            !authority.contains('*') && Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text)
        }
        // Origins of pages have no such scheme: a page from a file has the origin `null`.
        "file" | "ftp" | "ws" | "wss" | "data" | "blob" | "about" | "javascript" => false,
        _ => is_custom_scheme(scheme) && is_custom_authority(authority),
    }
}

/// Returns whether the text is a URL scheme (RFC 3986 section 3.1) in lower case.
fn is_custom_scheme(scheme: &str) -> bool {
    let is_scheme_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    scheme.starts_with(|first: char| first.is_ascii_lowercase()) && scheme.bytes().all(is_scheme_byte)
}

/// Returns whether the text is the authority of an app's origin: `localhost`, `localhost:3000`, `com.example.app`, an
/// extension's id.
fn is_custom_authority(authority: &str) -> bool {
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let is_host_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    let is_port = |port: &str| !port.starts_with('0') && port.parse::<u16>().is_ok();
    !host.is_empty() && host.bytes().all(is_host_byte) && port.is_none_or(is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_origins_that_browsers_send_are_valid() {
        for good in [
            "https://app.example.com",
            "https://app.example.com:8443",
            "http://localhost:5173",
            "http://[::1]:3000",
            "http://192.0.2.1",
            "https://xn--mnchen-3ya.example",
            "capacitor://localhost",
            "ionic://localhost",
            "tauri://localhost",
            "app://obsidian.md",
            "chrome-extension://mhjfbmdgcfjbbpaeojofohoefgiehjai",
        ] {
            assert!(is_origin_header(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "null",
            "app.example.com",
            "https://",
            "https://*",
            "https://*.example.com",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://app.example.com:0443",
            "HTTPS://app.example.com",
            "https://App.example.com",
            "https://münchen.example",
            "https://app.example.com/",
            "https://app.example.com/path",
            "https://app.example.com?x=1",
            "https://app.example.com#x",
            "https://user@app.example.com",
            "https://user:secret@app.example.com",
            "https://app.example.com:99999",
            "https://app .example.com",
            "https:app.example.com",
            "http://127.1",
            "http://[0:0:0:0:0:0:0:1]",
            "file://",
            "file:///index.html",
            "ws://app.example.com",
            "Capacitor://localhost",
            "capacitor://LOCALHOST",
            "capacitor://localhost/",
            "capacitor://",
            "capacitor://user@localhost",
            "capacitor://localhost:x",
            "capacitor://*",
            "1app://x",
        ] {
            assert!(!is_origin_header(bad), "{bad}");
        }
    }

    #[test]
    fn origins_are_compared_exactly_and_loopback_may_have_any_port() {
        let origins = CorsOrigins { exact: vec!["capacitor://localhost".into(), "https://app.example".into()], loopback: false };
        assert!(origins.allows("capacitor://localhost") && origins.allows("https://app.example"));
        for foreign in
            ["http://localhost:5173", "https://app.example.evil", "https://app.example/", "null", "https://APP.example"]
        {
            assert!(!origins.allows(foreign), "{foreign}");
        }
        let dev = CorsOrigins { exact: vec![], loopback: true };
        for local in ["http://localhost", "http://localhost:5173", "https://127.0.0.1:8443", "http://[::1]:3000"] {
            assert!(dev.allows(local), "{local}");
        }
        for foreign in [
            "http://localhost:80.evil",
            "http://localhost:",
            "http://127.0.0.1:+80",
            "http://127.0.0.10",
            "http://localhost:99999",
            "http://localhost.evil",
            "http://localhost:5173/",
            "http://evil@localhost",
            "null",
            "file://localhost",
            "http://10.0.0.1",
        ] {
            assert!(!dev.allows(foreign), "{foreign}");
        }
    }
}
