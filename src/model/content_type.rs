//! Media types of images, with the aliases and file extensions that clients send for them.

use std::fmt;

/// A media type that Valet verifies from the bytes. Never SVG: an SVG document runs scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentType {
    /// `image/jpeg`
    Jpeg,
    /// `image/png`
    Png,
    /// `image/webp`
    Webp,
    /// `image/gif`
    Gif,
    /// `image/avif`
    Avif,
    /// `image/heic`
    Heic,
    /// `image/heif`
    Heif,
}

/// A row of the table of names, in lower case.
struct Names {
    /// The name in the IANA registry: signed, stored and served.
    registered: &'static str,
    /// Names without a registration, or of image sequences in the same format, that browsers, phones and operating systems
    /// send.
    aliases: &'static [&'static str],
    /// Extensions of file names.
    extensions: &'static [&'static str],
}

impl ContentType {
    /// All media types, in the order of the documentation.
    pub const ALL: [Self; 7] = [Self::Jpeg, Self::Png, Self::Webp, Self::Gif, Self::Avif, Self::Heic, Self::Heif];

    /// Returns the names of the media type. The table covers the aliases in WHATWG MIME Sniffing, Chromium's and Firefox's
    /// tables, Android's `MimeTypeMap` and shared-mime-info; cameras of Canon and Sony name HEIF files `.HIF`.
    fn names(self) -> Names {
        let (registered, aliases, extensions): (_, &[_], &[_]) = match self {
            Self::Jpeg => (
                "image/jpeg",
                &[
                    "image/jpg",
                    "image/pjpeg",
                    "image/jpe",
                    "image/jfif",
                    "image/pipeg",
                    "image/x-jpeg",
                    "image/x-jpg",
                    "image/x-citrix-jpeg",
                ],
                &["jpg", "jpeg", "jpe", "jfif", "jif", "jfi", "pjpeg", "pjp"],
            ),
            Self::Png => {
                ("image/png", &["image/x-png", "image/apng", "image/vnd.mozilla.apng", "image/x-citrix-png"], &["png", "apng"])
            }
            Self::Webp => ("image/webp", &["image/x-webp"], &["webp"]),
            Self::Gif => ("image/gif", &["image/x-gif", "image/gi_"], &["gif", "gifv"]),
            Self::Avif => ("image/avif", &["image/avif-sequence", "image/avifs", "image/x-avif"], &["avif", "avifs"]),
            Self::Heic => ("image/heic", &["image/heic-sequence", "image/x-heic"], &["heic", "heics"]),
            Self::Heif => ("image/heif", &["image/heif-sequence", "image/hif", "image/x-heif"], &["heif", "heifs", "hif"]),
        };
        Names { registered, aliases, extensions }
    }

    /// Parses a media type without parameters, by its registered name or an alias; names are case-insensitive (RFC 9110 section
    /// 8.3.1).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is = |name: &&str| name.eq_ignore_ascii_case(text);
        Self::ALL.into_iter().find(|known| is(&known.as_str()) || known.names().aliases.iter().any(is))
    }

    /// Returns the media type that a file's name implies, for clients that send none: some browsers have no type for HEIC.
    #[must_use]
    pub fn by_extension(file_name: &str) -> Option<Self> {
        let (_, extension) = file_name.rsplit_once('.')?;
        let is = |known: &&str| known.eq_ignore_ascii_case(extension);
        Self::ALL.into_iter().find(|known| known.names().extensions.iter().any(is))
    }

    /// Returns the registered name: signed, stored and served.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.names().registered
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::ContentType;

    #[test]
    fn names_are_in_lower_case_and_of_one_type_each() {
        let mut names = Vec::new();
        for known in ContentType::ALL {
            let row = known.names();
            for name in [&[row.registered], row.aliases].concat() {
                assert!(name.starts_with("image/") && name.is_ascii());
                assert_eq!(
                    (ContentType::parse(name), ContentType::parse(&name.to_uppercase())),
                    (Some(known), Some(known)),
                    "{name}"
                );
                names.push(name.to_owned());
            }
            for extension in row.extensions {
                for file in [format!("IMG.0001.{extension}"), format!("a.{}", extension.to_uppercase())] {
                    assert_eq!(ContentType::by_extension(&file), Some(known), "{file}");
                }
                names.push((*extension).to_owned());
            }
        }
        assert!(names.iter().all(|name| name.to_ascii_lowercase() == *name));
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "one name, one type");
        for other in ["", "image/", "image/svg+xml", "image/tiff", "text/html", "image/png; a=b", " image/png", "jpg"] {
            assert_eq!(ContentType::parse(other), None, "{other}");
        }
        for other in ["", "jpg", "a.", "a.svg", "a.jpg.html", ".jpg "] {
            assert_eq!(ContentType::by_extension(other), None, "{other}");
        }
    }
}
