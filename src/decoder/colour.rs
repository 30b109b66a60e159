//! Colour profiles: phones write Display P3, and a picture without its profile would look pale.

use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

use super::pixels::{Pixels, Profile, ProfileKind};

/// Greatest size in bytes of a profile that a picture keeps; a larger one costs more than the conversion.
const MAX_KEPT_BYTES: usize = 4 << 10;

/// Pixels with the profile that a picture of them carries.
#[derive(Debug)]
pub struct Coloured {
    pub pixels: Pixels,
    pub profile: Option<Vec<u8>>,
}

/// Keeps a small RGB profile and converts the pixels of any other to sRGB. A profile that is broken, or not for these pixels, is
/// left out, as browsers do.
pub fn apply_profile(pixels: Pixels, profile: Option<Profile>) -> Coloured {
    match profile {
        Some(Profile::Numbers(profile)) => Coloured { pixels: converted(pixels, &profile, ProfileKind::Rgb), profile: None },
        Some(Profile::Icc { icc, kind }) => apply_icc_profile(pixels, icc, kind),
        None => Coloured { pixels, profile: None },
    }
}

/// Keeps a small RGB profile, or converts the pixels.
fn apply_icc_profile(pixels: Pixels, icc: Vec<u8>, kind: ProfileKind) -> Coloured {
    let Some(parsed) = parse(&icc, kind) else { return Coloured { pixels, profile: None } };
    match kind {
        ProfileKind::Rgb if icc.len() <= MAX_KEPT_BYTES => Coloured { pixels, profile: Some(icc) },
        ProfileKind::Rgb | ProfileKind::Grey => Coloured { pixels: converted(pixels, &parsed, kind), profile: None },
    }
}

/// Converts pixels whose picture keeps this profile to sRGB. If the profile is broken, returns them as they are.
pub fn to_srgb(pixels: Pixels, icc: &[u8]) -> Pixels {
    match ColorProfile::new_from_slice(icc) {
        Ok(profile) => converted(pixels, &profile, ProfileKind::Rgb),
        Err(_) => pixels,
    }
}

/// Parses a profile; `None` if it is broken, or not for pixels of this kind.
fn parse(icc: &[u8], kind: ProfileKind) -> Option<ColorProfile> {
    let parsed = ColorProfile::new_from_slice(icc).ok()?;
    let expected = match kind {
        ProfileKind::Rgb => DataColorSpace::Rgb,
        ProfileKind::Grey => DataColorSpace::Gray,
    };
    (parsed.color_space == expected).then_some(parsed)
}

/// Converts to sRGB. Pixels that cannot be converted stay as they are.
fn converted(pixels: Pixels, profile: &ColorProfile, kind: ProfileKind) -> Pixels {
    let layout = match kind {
        ProfileKind::Rgb => Layout::Rgb,
        ProfileKind::Grey => Layout::Gray,
    };
    let Ok(transform) =
        profile.create_transform_8bit(layout, &ColorProfile::new_srgb(), Layout::Rgb, TransformOptions::default())
    else {
        return pixels;
    };
    let mut rgb = vec![0; pixels.rgb.len()];
    let done = match kind {
        ProfileKind::Rgb => transform.transform(&pixels.rgb, &mut rgb),
        ProfileKind::Grey => {
            let grey: Vec<_> = pixels.rgb.iter().step_by(3).copied().collect();
            transform.transform(&grey, &mut rgb)
        }
    };
    if done.is_ok() { Pixels { rgb, ..pixels } } else { pixels }
}
