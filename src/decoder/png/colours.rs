//! The colours that a PNG names, in the order of precedence of its specification (third edition, 13.13): numbers of a video
//! standard (cICP), an ICC profile (iCCP), sRGB, a gamma with or without primaries (gAMA, cHRM).

use moxcms::{
    Chromaticity, CicpColorPrimaries, CicpProfile, ColorPrimaries, ColorProfile, MatrixCoefficients, ToneReprCurve,
    TransferCharacteristics, XyY,
};
use png::{CodingIndependentCodePoints, Info, ScaledFloat, SourceChromaticities};

use super::super::pixels::{Profile, ProfileKind};

/// Returns the colours of an image; `None` for sRGB.
pub(super) fn profile_of(info: &Info<'_>, is_grey: bool) -> Option<Profile> {
    // Numbers that name no standard are ignored.
    if let Some(video) = info.coding_independent_code_points.and_then(video_standard) {
        return of_video(video);
    }
    if let Some(icc) = &info.icc_profile {
        return Some(Profile::Icc { icc: icc.to_vec(), kind: if is_grey { ProfileKind::Grey } else { ProfileKind::Rgb } });
    }
    if info.srgb.is_some() {
        return None;
    }
    of_gamma(info.gama_chunk?, info.chrm_chunk)
}

/// Returns the video standard that the numbers name; `None` if they are unknown or reserved.
fn video_standard(points: CodingIndependentCodePoints) -> Option<CicpProfile> {
    let color_primaries = CicpColorPrimaries::try_from(points.color_primaries).ok()?;
    let transfer_characteristics = TransferCharacteristics::try_from(points.transfer_function).ok()?;
    let is_named = !matches!(color_primaries, CicpColorPrimaries::Unspecified | CicpColorPrimaries::Reserved)
        && !matches!(transfer_characteristics, TransferCharacteristics::Unspecified | TransferCharacteristics::Reserved);
    is_named.then_some(CicpProfile {
        color_primaries,
        transfer_characteristics,
        matrix_coefficients: MatrixCoefficients::Identity,
        full_range: true,
    })
}

/// Returns the profile of a video standard; `None` for sRGB.
fn of_video(video: CicpProfile) -> Option<Profile> {
    let transfer = video.transfer_characteristics;
    let is_srgb = video.color_primaries == CicpColorPrimaries::Bt709 && transfer == TransferCharacteristics::Srgb;
    if is_srgb {
        return None;
    }
    let mut numbers = ColorProfile::new_from_cicp(video);
    // As long as a profile has numbers of a video standard, its curves are ignored.
    numbers.cicp = None;
    if let Some(curve) = dynamic_curve(transfer) {
        set_curve(&mut numbers, curve);
    }
    Some(Profile::Numbers(Box::new(numbers)))
}

/// Returns the profile of a gamma; `None` for sRGB. The stored value is the exponent of the encoding, so that of decoding is its
/// inverse.
fn of_gamma(gamma: ScaledFloat, primaries: Option<SourceChromaticities>) -> Option<Profile> {
    let gamma = gamma.into_value();
    // Many files have the gamma alone that stands for sRGB.
    let is_srgb = primaries.is_none() && (gamma - 1.0 / 2.2).abs() < 0.001;
    if is_srgb || !(0.01..=100.0).contains(&gamma) {
        return None;
    }
    let mut profile = ColorProfile::new_srgb();
    // As long as a profile has numbers of a video standard, its curves are ignored.
    profile.cicp = None;
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
    set_curve(&mut profile, ToneReprCurve::Parametric(vec![1.0 / gamma]));
    Some(Profile::Numbers(Box::new(profile)))
}

/// Sets the curve of all three channels.
fn set_curve(profile: &mut ColorProfile, curve: ToneReprCurve) {
    profile.red_trc = Some(curve.clone());
    profile.green_trc = Some(curve.clone());
    profile.blue_trc = Some(curve);
}

/// Luminance of white in images of high dynamic range, in candela per square metre (ITU-R BT.2408).
const WHITE: f64 = 203.0;
/// Greatest luminance of such an image, as browsers assume it.
const BRIGHTEST: f64 = 1000.0;

/// Returns the curve by which an image of high dynamic range is reduced to the range of sRGB (Reinhard's operator, with
/// [`BRIGHTEST`] as white); `None` for other images.
fn dynamic_curve(transfer: TransferCharacteristics) -> Option<ToneReprCurve> {
    let luminance: fn(f64) -> f64 = match transfer {
        TransferCharacteristics::Smpte2084 => perceptual_quantizer,
        TransferCharacteristics::Hlg => hybrid_log_gamma,
        _ => return None,
    };
    let white = BRIGHTEST / WHITE;
    let value = |at: u16| {
        let relative = luminance(f64::from(at) / 4095.0) / WHITE;
        let mapped = relative * (1.0 + relative / (white * white)) / (1.0 + relative);
        // The clamped value fits into 16 bits.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let stored = (mapped.clamp(0.0, 1.0) * 65535.0).round() as u16;
        stored
    };
    Some(ToneReprCurve::Lut((0..4096).map(value).collect()))
}

/// Returns the luminance of a signal (SMPTE ST 2084).
fn perceptual_quantizer(signal: f64) -> f64 {
    let power = signal.powf(32.0 / 2523.0);
    10_000.0 * ((power - 0.835_937_5).max(0.0) / (18.851_562_5 - 18.687_5 * power)).powf(8192.0 / 1305.0)
}

/// Returns the luminance of a signal on a display of 1000 candela per square metre (ITU-R BT.2100).
fn hybrid_log_gamma(signal: f64) -> f64 {
    let scene = if signal <= 0.5 {
        signal * signal / 3.0
    } else {
        (((signal - 0.559_910_73) / 0.178_832_77).exp() + 0.284_668_92) / 12.0
    };
    BRIGHTEST * scene.powf(1.2)
}
