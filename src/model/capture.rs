//! Time, camera and position of an image, as its metadata has them.

use std::fmt;

use super::{TakenAt, hidden_characters::is_hidden};

/// Time, camera and position of an image; each is `None` if the metadata does not have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capture {
    /// The time.
    pub taken_at: Option<TakenAt>,
    /// The camera.
    pub camera: Option<Camera>,
    /// The position.
    pub location: Option<Location>,
}

impl Capture {
    /// Returns the capture without a time that is in the future in every time zone ([`TakenAt::has_passed`]).
    #[must_use]
    pub fn without_future(self, now: time::OffsetDateTime) -> Self {
        Self { taken_at: self.taken_at.filter(|taken_at| taken_at.has_passed(now)), ..self }
    }

    /// Returns the capture with the declared time, if the metadata has none.
    #[must_use]
    pub fn or_taken_at(self, declared: Option<TakenAt>) -> Self {
        Self { taken_at: self.taken_at.or(declared), ..self }
    }

    /// Returns the capture without the position.
    #[must_use]
    pub fn without_location(self) -> Self {
        Self { location: None, ..self }
    }
}

/// A camera's name: make and model, at most 100 characters that can be shown; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Camera(String);

impl Camera {
    /// The longest name in characters.
    pub const MAX_CHARS: usize = 100;

    /// Returns the name of a camera. The make is left out if the model begins with its first word.
    #[must_use]
    pub fn new(make: Option<&str>, model: Option<&str>) -> Option<Self> {
        let (make, model) = (make.map(visible_words).unwrap_or_default(), model.map(visible_words).unwrap_or_default());
        let first_word = |text: &str| text.split(' ').next().map(str::to_lowercase);
        let name = if model.is_empty() || first_word(&make) == first_word(&model) || make.is_empty() {
            if model.is_empty() { make } else { model }
        } else {
            format!("{make} {model}")
        };
        let name: String = name.chars().take(Self::MAX_CHARS).collect();
        let name = name.trim();
        (!name.is_empty()).then(|| Self(name.to_owned()))
    }

    /// Parses the name in the database.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::new(None, Some(text))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns the words of a text, without characters that cannot be shown, and with single spaces between them.
fn visible_words(text: &str) -> String {
    let visible: String = text.chars().map(|c| if is_hidden(c) || c == char::REPLACEMENT_CHARACTER { ' ' } else { c }).collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A position on earth (WGS 84), to a millionth of a degree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Millionths of a degree north of the equator.
    latitude: i32,
    /// Millionths of a degree east of Greenwich.
    longitude: i32,
}

/// Units of a degree in a [`Location`].
const UNITS_PER_DEGREE: f64 = 1e6;

impl Location {
    /// Returns the position; `None` if it is out of range.
    #[must_use]
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let units = |degrees: f64, max_degrees: f64| {
            // At most 180 million, which fit into an `i32`.
            #[allow(clippy::cast_possible_truncation)]
            (degrees.abs() <= max_degrees).then(|| (degrees * UNITS_PER_DEGREE).round() as i32)
        };
        Some(Self { latitude: units(latitude, 90.0)?, longitude: units(longitude, 180.0)? })
    }

    /// Returns the degrees north of the equator.
    #[must_use]
    pub fn latitude(self) -> f64 {
        f64::from(self.latitude) / UNITS_PER_DEGREE
    }

    /// Returns the degrees east of Greenwich.
    #[must_use]
    pub fn longitude(self) -> f64 {
        f64::from(self.longitude) / UNITS_PER_DEGREE
    }
}

impl fmt::Display for Camera {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::text_strategies::any_text;

    #[test]
    fn a_camera_is_named_by_make_and_model() {
        for (make, model, name) in [
            (Some("Apple"), Some("iPhone 15 Pro"), "Apple iPhone 15 Pro"),
            (Some("Canon"), Some("Canon EOS R5"), "Canon EOS R5"),
            (Some("NIKON CORPORATION"), Some("NIKON D850"), "NIKON D850"),
            (Some("samsung"), None, "samsung"),
            (None, Some("SM-G991B "), "SM-G991B"),
            (Some(" \u{202E}OLYMPUS  CORP.\u{7}"), Some("E-M1\n"), "OLYMPUS CORP. E-M1"),
        ] {
            assert_eq!(Camera::new(make, model).unwrap().as_str(), name);
        }
        for (make, model) in [(None, None), (Some(""), Some("   ")), (Some("\0\u{FFFD}"), None)] {
            assert_eq!(Camera::new(make, model), None);
        }
    }

    #[test]
    fn positions_are_rounded_to_millionths_and_those_out_of_range_rejected() {
        let location = Location::new(48.858_370_4, -2.294_481).unwrap();
        assert_eq!((location.latitude(), location.longitude()), (48.858_37, -2.294_481));
        for (latitude, longitude) in [(90.1, 0.0), (0.0, -180.1), (f64::NAN, 0.0), (0.0, f64::INFINITY)] {
            assert_eq!(Location::new(latitude, longitude), None);
        }
    }

    proptest! {
        #[test]
        fn names_can_be_shown_and_parse_to_themselves(make in any_text(), model in any_text()) {
            if let Some(camera) = Camera::new(Some(&make), Some(&model)) {
                prop_assert!(camera.as_str().chars().count() <= Camera::MAX_CHARS && !camera.as_str().contains(is_hidden));
                prop_assert_eq!(Camera::parse(camera.as_str()), Some(camera));
            }
        }
    }
}
