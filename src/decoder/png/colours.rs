//! What a PNG says about its colours, in the order of its specification (third edition, 13.13): numbers of a video standard (cICP), an
//! ICC profile (iCCP), sRGB, a gamma with or without primaries (gAMA, cHRM).

use moxcms::{
    Chromaticity, CicpColorPrimaries, CicpProfile, ColorPrimaries, ColorProfile, MatrixCoefficients, ToneReprCurve,
    TransferCharacteristics, XyY,
};
use png::{CodingIndependentCodePoints, Info, ScaledFloat, SourceChromaticities};

use super::super::pixels::{Profile, ProfileKind};

/// Returns the colours of an image; `None` for sRGB.
pub(super) fn of(info: &Info<'_>, is_grey: bool) -> Option<Profile> {
    if let Some(points) = info.coding_independent_code_points {
        return of_points(points);
    }
    if let Some(icc) = &info.icc_profile {
        return Some(Profile::Icc { icc: icc.to_vec(), kind: if is_grey { ProfileKind::Grey } else { ProfileKind::Rgb } });
    }
    if info.srgb.is_some() {
        return None;
    }
    of_gamma(info.gama_chunk?, info.chrm_chunk)
}

fn of_points(points: CodingIndependentCodePoints) -> Option<Profile> {
    let profile = CicpProfile {
        color_primaries: CicpColorPrimaries::try_from(points.color_primaries).ok()?,
        transfer_characteristics: TransferCharacteristics::try_from(points.transfer_function).ok()?,
        matrix_coefficients: MatrixCoefficients::Identity,
        full_range: true,
    };
    let is_srgb = profile.color_primaries == CicpColorPrimaries::Bt709
        && profile.transfer_characteristics == TransferCharacteristics::Srgb;
    (!is_srgb).then(|| Profile::Numbers(Box::new(ColorProfile::new_from_cicp(profile))))
}

/// The stored value is the exponent of the encoding, so that of decoding is its inverse.
fn of_gamma(gamma: ScaledFloat, primaries: Option<SourceChromaticities>) -> Option<Profile> {
    let gamma = gamma.into_value();
    if !(0.01..=100.0).contains(&gamma) {
        return None;
    }
    let mut profile = ColorProfile::new_srgb();
    if let Some(SourceChromaticities { white, red, green, blue }) = primaries {
        let point = |(x, y): (ScaledFloat, ScaledFloat)| Chromaticity::new(x.into_value(), y.into_value());
        let white = point(white);
        let points = [white, point(red), point(green), point(blue)];
        if points.iter().any(|point| point.y <= 0.0) {
            return None;
        }
        let white = XyY { x: white.x.into(), y: white.y.into(), yb: 1.0 };
        let [_, red, green, blue] = points;
        profile.update_rgb_colorimetry(white, ColorPrimaries { red, green, blue });
    }
    let curve = ToneReprCurve::Parametric(vec![1.0 / gamma]);
    profile.red_trc = Some(curve.clone());
    profile.green_trc = Some(curve.clone());
    profile.blue_trc = Some(curve);
    Some(Profile::Numbers(Box::new(profile)))
}
