//! File names for downloads, with an extension of the verified type.

use super::{ContentType, FileName};

impl FileName {
    /// Returns the name with an extension of the verified type. `holiday.hta` of a JPEG becomes `holiday.hta.jpg`: an image may
    /// be a valid script too, and operating systems run a file by its extension (OWASP File Upload Cheat Sheet).
    #[must_use]
    pub fn download_name(&self, content_type: ContentType) -> Self {
        let type_of_name = ContentType::by_extension(self.as_str());
        // Phones name HEIC and HEIF files alike: `.heic`.
        let is_heif = |known| matches!(known, ContentType::Heic | ContentType::Heif);
        if type_of_name.is_some_and(|known| known == content_type || is_heif(known) && is_heif(content_type)) {
            return self.clone();
        }
        let extension = match content_type {
            ContentType::Jpeg => "jpg",
            other => other.as_str().trim_start_matches("image/"),
        };
        let stem = &self.as_str()[..self.as_str().floor_char_boundary(Self::MAX_BYTES - 1 - extension.len())];
        // Cannot fail: the appended extension is valid in a name.
        Self::parse(&format!("{stem}.{extension}")).unwrap_or_else(|_| self.clone())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_download_has_an_extension_of_its_type() {
        let saved = |name: &str, content_type| FileName::parse(name).unwrap().download_name(content_type).as_str().to_owned();
        for (name, content_type, expected) in [
            ("cat.jpg", ContentType::Jpeg, "cat.jpg"),
            ("cat.JPEG", ContentType::Jpeg, "cat.JPEG"),
            ("IMG_1.HEIC", ContentType::Heif, "IMG_1.HEIC"),
            ("holiday.hta", ContentType::Jpeg, "holiday.hta.jpg"),
            ("setup.jpg.bat", ContentType::Jpeg, "setup.jpg.bat.jpg"),
            ("cat.png", ContentType::Webp, "cat.png.webp"),
            ("image", ContentType::Heic, "image.heic"),
            (".bashrc", ContentType::Gif, ".bashrc.gif"),
            ("a.exe.", ContentType::Avif, "a.exe..avif"),
        ] {
            assert_eq!(saved(name, content_type), expected);
        }
        for content_type in ContentType::ALL {
            for name in ["a".repeat(251) + ".exe", "ä".repeat(127), "🦀".repeat(63)] {
                let saved = saved(&name, content_type);
                assert!(saved.len() <= FileName::MAX_BYTES && ContentType::by_extension(&saved) == Some(content_type), "{saved}");
            }
        }
    }
}
