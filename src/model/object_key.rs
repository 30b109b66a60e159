//! Object keys: their forms, and how those that Valet wrote are recognized in a bucket that other programs may write to as well.

use std::fmt;

use uuid::Uuid;

use super::{ImageId, UserId};

/// Suffix of a preview's key.
pub(super) const PREVIEW_SUFFIX: &str = "-preview";
/// Suffixes of the keys of the pictures that a worker makes: their longer sides.
const PICTURE_SUFFIXES: [&str; 2] = ["-w640", "-w1600"];
/// Hexadecimal digits of a copy's attempt: a `UUIDv4` without hyphens.
const ATTEMPT_DIGITS: usize = 32;
/// Characters of an identifier in its hyphenated form.
const ID_CHARS: usize = 36;

/// An object key. No byte of it comes from the caller. All keys of an image contain its id:
///
/// - `u/<user>/<image>`: written by a client, once, under a signature that binds length, type, digest and `If-None-Match`.
/// - `in/<user>/<image>`: written by a client to a store that does not enforce these; copied from there at confirm.
/// - `u/<user>/<image>-<attempt>`: such a copy, one for each attempt, under a key for which no URL is ever signed.
/// - any of them with `-preview` after it: the preview of those bytes.
/// - one that begins with `u/` with `-w640` or `-w1600` after it: a picture that a worker made of those bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(String);

/// Prefix of the keys that clients write and that are copied at confirm.
const INCOMING_PREFIX: &str = "in/";

impl ObjectKey {
    /// Returns the final key of an image on a store that enforces what was signed.
    #[must_use]
    pub fn final_for(user: UserId, image: ImageId) -> Self {
        Self(format!("u/{user}/{image}"))
    }

    /// Returns the key of an upload that is copied at confirm.
    #[must_use]
    pub fn incoming(user: UserId, image: ImageId) -> Self {
        Self(format!("{INCOMING_PREFIX}{user}/{image}"))
    }

    /// Returns a new key for a copy. No URL is ever signed for it.
    #[must_use]
    pub fn copy_attempt(user: UserId, image: ImageId) -> Self {
        Self(format!("u/{user}/{image}-{}", Uuid::new_v4().simple()))
    }

    /// Returns the prefixes of the keys of a user's objects.
    #[must_use]
    pub fn user_prefixes(user: UserId) -> [String; 2] {
        [format!("{INCOMING_PREFIX}{user}/"), format!("u/{user}/")]
    }

    /// Returns the key of the preview of these bytes.
    #[must_use]
    pub fn preview(&self) -> Self {
        Self(format!("{self}{PREVIEW_SUFFIX}"))
    }

    /// Returns the keys of the pictures that a worker makes of these bytes, the smaller one first.
    #[must_use]
    pub fn pictures(&self) -> [Self; 2] {
        PICTURE_SUFFIXES.map(|suffix| Self(format!("{self}{suffix}")))
    }

    /// Returns whether the object has to be copied before it can be an image.
    #[must_use]
    pub fn is_incoming(&self) -> bool {
        self.0.starts_with(INCOMING_PREFIX)
    }

    /// Wraps a key that was read from the database or a listing.
    #[must_use]
    pub fn from_stored(key: String) -> Self {
        Self(key)
    }

    /// Returns the owner that the key names ([`KeyOwner::of_key`]).
    #[must_use]
    pub fn owner(&self) -> Option<KeyOwner> {
        KeyOwner::of_key(self.as_str())
    }

    /// Returns the key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The user and the image that an object key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyOwner {
    /// The second segment of the key.
    pub user: UserId,
    /// The beginning of the third.
    pub image: ImageId,
}

impl KeyOwner {
    /// Returns the owner in a key of exactly one of the forms that Valet writes (see [`ObjectKey`]). `None` for every other
    /// key: it belongs to another program, and is neither served nor deleted.
    #[must_use]
    pub fn of_key(text: &str) -> Option<Self> {
        let picture = PICTURE_SUFFIXES.iter().find_map(|suffix| text.strip_suffix(suffix));
        let text = picture.or_else(|| text.strip_suffix(PREVIEW_SUFFIX)).unwrap_or(text);
        let (prefix, rest) = text.split_once('/')?;
        let (user, name) = rest.split_once('/')?;
        let (image, attempt) = name.split_at_checked(ID_CHARS)?;
        let has_form = match (prefix, attempt) {
            ("u", "") => true,
            // Pictures are made of ready images alone.
            ("in", "") => picture.is_none(),
            ("u", attempt) => attempt.strip_prefix('-').is_some_and(is_attempt),
            _ => false,
        };
        let owner = Self { user: UserId::parse(user)?, image: ImageId::parse(image)? };
        (has_form && is_v7(owner.user.as_bytes()) && is_v7(owner.image.as_bytes())).then_some(owner)
    }

    /// Returns whether a key is one of the image's own.
    #[must_use]
    pub fn has_key(self, key: &str) -> bool {
        self.has_final_key(key) || Self::of_key(key) == Some(self)
    }

    /// Returns whether a key is [`ObjectKey::final_for`] this image, as almost all are, without parsing its ids.
    fn has_final_key(self, key: &str) -> bool {
        let mut buffer = [0; ID_CHARS];
        let mut is_id = |text: &str, id: Uuid| text.as_bytes() == id.hyphenated().encode_lower(&mut buffer).as_bytes();
        let ids = key.strip_prefix("u/").and_then(|ids| ids.split_at_checked(ID_CHARS));
        ids.is_some_and(|(user, image)| {
            let image = image.strip_prefix('/').unwrap_or_default();
            is_v7(self.user.as_bytes())
                && is_v7(self.image.as_bytes())
                && is_id(user, Uuid::from_bytes(*self.user.as_bytes()))
                && is_id(image, Uuid::from_bytes(*self.image.as_bytes()))
        })
    }

    /// Returns the key that the record of this image names, if it is one of the image's own.
    #[must_use]
    pub fn own_key(self, recorded: &str) -> Option<ObjectKey> {
        self.has_key(recorded).then(|| ObjectKey::from_stored(recorded.to_owned()))
    }
}

/// Returns whether the sixteen bytes are a UUIDv7 (RFC 9562 section 5.7), the only version that Valet makes for users and
/// images.
fn is_v7(bytes: &[u8; 16]) -> bool {
    bytes[6] >> 4 == 7 && bytes[8] >> 6 == 0b10
}

/// Returns whether the text is the attempt in the key of a copy: a `UUIDv4` without hyphens, whose thirteenth digit is the version.
fn is_attempt(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == ATTEMPT_DIGITS && text.bytes().all(is_digit) && text.as_bytes()[12] == b'4'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a key of each form: three, with a preview of each, and the pictures of two.
    fn forms(user: UserId, image: ImageId) -> Vec<ObjectKey> {
        let bases = [ObjectKey::final_for(user, image), ObjectKey::incoming(user, image), ObjectKey::copy_attempt(user, image)];
        let pictures = [&bases[0], &bases[2]].map(ObjectKey::pictures).concat();
        bases.into_iter().flat_map(|key| [key.preview(), key]).chain(pictures).collect()
    }

    #[test]
    fn every_form_names_its_owner() {
        let (user, image) = (UserId::new(), ImageId::new());
        for key in forms(user, image) {
            assert_eq!(key.owner(), Some(KeyOwner { user, image }), "{key}");
            assert!(KeyOwner { user, image }.has_key(key.as_str()), "{key}");
            for other in [KeyOwner { user: UserId::new(), image }, KeyOwner { user, image: ImageId::new() }] {
                assert!(!other.has_key(key.as_str()), "{key}");
            }
        }
    }

    #[test]
    fn pictures_are_named_by_their_longer_sides() {
        assert_eq!(PICTURE_SUFFIXES, crate::model::decoding::EDGES.map(|edge| format!("-w{edge}")));
    }

    #[test]
    fn look_alikes_have_no_owner() {
        let (user, image) = (UserId::new(), ImageId::new());
        let (u, i, v4) = (user.to_string(), image.to_string(), uuid::Uuid::new_v4());
        let attempt = ObjectKey::copy_attempt(user, image);
        for key in [
            "u/holiday/beach.jpg".to_owned(),
            "u/readme.txt".to_owned(),
            "in/invoices/2026.pdf".to_owned(),
            String::new(),
            "u/".to_owned(),
            format!("u/{u}"),
            format!("u/{u}/"),
            format!("u/{u}/{i}/"),
            format!("u/{u}/{i}.jpg"),
            format!("u/{u}/{i}-preview-preview"),
            format!("u/{u}/{i}-preview.webp"),
            format!("u/{u}/{i}-"),
            format!("u/{u}/{i}-thumb"),
            format!("u/{u}/{i}-w320"),
            format!("u/{u}/{i}-w640-w640"),
            format!("u/{u}/{i}-preview-w640"),
            format!("u/{u}/{i}-w1600-preview"),
            format!("in/{u}/{i}-w640"),
            format!("u/{u}/{i}/original"),
            format!("/u/{u}/{i}"),
            format!("U/{u}/{i}"),
            format!("backup/u/{u}/{i}"),
            format!("in/{}", attempt.as_str().strip_prefix("u/").unwrap_or_default()),
            format!("{attempt}0"),
            format!("u/{}/{i}", u.to_uppercase()),
            format!("u/{u}/{}", i.replace('-', "")),
            format!("u/{v4}/{i}"),
            format!("u/{u}/{v4}"),
            format!("u/{u}/{i}-{}", "0".repeat(32)),
            format!("u/{u}/{i} "),
        ] {
            assert_eq!(ObjectKey::from_stored(key.clone()).owner(), None, "{key}");
        }
    }

    proptest! {
        /// A change of one character never gives the same owner under another key, unless Valet could have written it.
        #[test]
        fn one_changed_character_is_noticed(
            form in 0_usize..10,
            index in any::<prop::sample::Index>(),
            replacement in any::<char>(),
        ) {
            let (user, image) = (UserId::new(), ImageId::new());
            let key = forms(user, image).swap_remove(form);
            let mut chars: Vec<char> = key.as_str().chars().collect();
            let index = index.index(chars.len());
            chars[index] = replacement;
            let changed = ObjectKey::from_stored(chars.into_iter().collect());
            let own = KeyOwner { user, image };
            prop_assert_eq!(own.has_key(changed.as_str()), changed.owner() == Some(own));
            if let Some(owner) = changed.owner() {
                let is_digit = replacement.is_ascii_digit() || ('a'..='f').contains(&replacement);
                prop_assert!(is_digit || changed == key, "{changed}");
                prop_assert!(forms(owner.user, owner.image).iter().any(|form| form.as_str().len() == changed.as_str().len()));
            }
        }

        #[test]
        fn no_other_text_names_an_owner(text in "\\PC{0,90}") {
            prop_assert_eq!(ObjectKey::from_stored(text).owner(), None);
        }
    }
}
