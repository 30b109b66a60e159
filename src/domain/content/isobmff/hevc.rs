//! The size of a picture that is coded with HEVC, from the configuration of its decoder (ISO/IEC 14496-15, 8.3.3.1) and the
//! sequence parameter set in it (ITU-T H.265, 7.3.2.2).

use super::super::file::{Part, Stop};
use super::{ContentError, Size, bits::Bits};

/// Bytes of the configuration before its arrays of parameter sets.
const HEAD_BYTES: usize = 22;

/// Type of a NAL unit that is a sequence parameter set.
const SEQUENCE_PARAMETER_SET: u8 = 33;

/// Returns the size of the decoded picture, by the first sequence parameter set of the configuration. `None` if the set is missing
/// or cannot be read.
pub(super) fn picture_size(configuration: &[u8]) -> Option<Size> {
    first_parameter_set(Part(configuration)).ok().flatten().and_then(|unit| read_size(&unit).ok())
}

/// Returns the first sequence parameter set, without the bytes that keep start codes out of it (7.3.1.1).
fn first_parameter_set(mut configuration: Part<'_>) -> Result<Option<Vec<u8>>, Stop> {
    configuration.take(HEAD_BYTES)?;
    for _ in 0..configuration.u8()? {
        let kind = configuration.u8()? & 0x3F;
        for _ in 0..configuration.u16_be()? {
            let length = configuration.u16_be()?;
            let unit = configuration.take(length.into())?;
            if kind == SEQUENCE_PARAMETER_SET {
                return Ok(Some(without_emulation_prevention(unit)));
            }
        }
    }
    Ok(None)
}

/// Removes the bytes of emulation prevention: each 3 behind two zeros.
fn without_emulation_prevention(unit: &[u8]) -> Vec<u8> {
    let mut zeros = 0;
    let is_content = |byte: &&u8| {
        let is_content = zeros < 2 || **byte != 3;
        zeros = if **byte == 0 { zeros + 1 } else { 0 };
        is_content
    };
    unit.iter().filter(is_content).copied().collect()
}

/// Reads the size of a sequence's pictures: that of the coded pictures without the margins of the conformance window.
fn read_size(unit: &[u8]) -> Result<Size, Stop> {
    let mut bits = Bits::new(Part(unit));
    // The header of the unit (16), the id of the video parameter set (4), the number of sub-layers less one (3), a flag (1).
    bits.read(20)?;
    let sub_layers = bits.read(3)?;
    bits.read(1)?;
    skip_profile(&mut bits, sub_layers)?;
    let _id = golomb(&mut bits)?;
    let chroma_format = golomb(&mut bits)?;
    // Luma samples for each chroma sample, across and down.
    let (across, down) = match chroma_format {
        0 | 3 => (1, 1),
        1 => (2, 2),
        2 => (2, 1),
        _ => return Err(ContentError::Malformed.into()),
    };
    // Whether the three planes are coded separately.
    bits.read(u32::from(chroma_format == 3))?;
    let (width, height) = (golomb(&mut bits)?, golomb(&mut bits)?);
    let mut margins = [0; 4];
    if bits.flag()? {
        for margin in &mut margins {
            *margin = golomb(&mut bits)?;
        }
    }
    let [left, right, top, bottom] = margins.map(u64::from);
    let inside = |side: u32, margin: u64| u64::from(side).checked_sub(margin).and_then(|side| u32::try_from(side).ok());
    let size = inside(width, across * (left + right)).zip(inside(height, down * (top + bottom)));
    let (width, height) = size.ok_or(ContentError::Malformed)?;
    Ok(Size { width, height })
}

/// Skips the profile and level of a sequence, and those of its sub-layers (7.3.3).
fn skip_profile(bits: &mut Bits<'_>, sub_layers: u32) -> Result<(), Stop> {
    const PROFILE_BITS: u32 = 88;
    const LEVEL_BITS: u32 = 8;
    bits.read(PROFILE_BITS + LEVEL_BITS)?;
    if sub_layers == 0 {
        return Ok(());
    }
    let mut length = 0;
    // There are flags for eight sub-layers; the last ones are not used.
    for sub_layer in 0..8 {
        let (has_profile, has_level) = (bits.flag()?, bits.flag()?);
        if sub_layer < sub_layers {
            length += u32::from(has_profile) * PROFILE_BITS + u32::from(has_level) * LEVEL_BITS;
        }
    }
    bits.read(length)?;
    Ok(())
}

/// Reads an integer of variable length (9.2): some zeros, a one, and as many further bits as there are zeros.
fn golomb(bits: &mut Bits<'_>) -> Result<u32, Stop> {
    let mut zeros = 0;
    while !bits.flag()? {
        zeros += 1;
        if zeros == 32 {
            return Err(ContentError::Malformed.into());
        }
    }
    Ok((1 << zeros) - 1 + bits.read(zeros)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::tests::build::bits;
    use super::{HEAD_BYTES, picture_size};

    /// Returns the size that is read from a configuration with this sequence parameter set behind another unit.
    fn size(unit: &[u8]) -> Option<(u32, u32)> {
        let length = u16::try_from(unit.len()).unwrap().to_be_bytes();
        // Two arrays: one has a video parameter set of two bytes, the other the sequence parameter set.
        let head = [&[0; HEAD_BYTES][..], &[2, 0xA0, 0, 1, 0, 2, 0x40, 1, 0xA1, 0, 1]].concat();
        picture_size(&[&head, &length[..], unit].concat()).map(|size| (size.width, size.height))
    }

    /// Parameter sets of x265 for pictures of 102x68, which are coded in 104x72.
    #[test]
    fn the_conformance_window_is_in_units_of_chroma_samples() {
        for (chroma, unit) in [
            ("4:2:0", "42010103700000030090000003000003001ea03481275796ea4929ae6e021a0c0800000300c8000003000840"),
            ("4:2:2", "4201010408000003009d3800000300001eb034812752e5ba924a6b9b808683020000030032000003000210"),
            ("4:4:4", "4201010408000003009e3800000300001e90069024ee5cb752494d737010d06040000006400000030042"),
            ("grey", "4201010408000003009ff800000300001ec0d2049dcb96ea4929ae6c0800000300c8000003000840"),
        ] {
            let unit: Vec<u8> = (0..unit.len()).step_by(2).map(|at| u8::from_str_radix(&unit[at..at + 2], 16).unwrap()).collect();
            assert_eq!(size(&unit), Some((102, 68)), "{chroma}");
            for cut in 0..20 {
                assert_eq!(size(&unit[..cut]), None, "{chroma} cut at {cut}");
            }
        }
    }

    #[test]
    fn profiles_of_sub_layers_are_skipped() {
        // Arbitrary bits of a profile (88) and a level (8).
        let profile = [(32, 0xAAAA_AAAA), (32, 0xAAAA_AAAA), (24, 0xAA_AAAA)];
        let level = [(8, 0xAA)];
        let start = [(16, 0x4201), (4, 0), (3, 2), (1, 1)];
        // The first sub-layer has both, the second a level.
        let flags = [(4, 0b1101), (12, 0)];
        // The id 0, 4:2:0, 640x480 and no window: of variable length, each.
        let rest = [(1, 1), (3, 2), (19, 641), (17, 481), (1, 0)];
        let fields = [&start[..], &profile, &level, &flags, &profile, &level, &level, &rest].concat();
        assert_eq!(size(&bits(&fields)), Some((640, 480)));
    }

    #[test]
    fn impossible_values_have_no_size() {
        let profile = [(16, 0x4201), (8, 1), (32, 0xAAAA_AAAA), (32, 0xAAAA_AAAA), (32, 0xAAAA_AAAA), (1, 1)];
        let size_with = |rest: &[(u32, u32)]| size(&bits(&[&profile[..], rest].concat()));
        assert_eq!(size_with(&[(3, 2), (19, 641), (17, 481), (1, 0)]), Some((640, 480)));
        assert_eq!(
            size_with(&[(3, 2), (19, 641), (17, 481), (1, 1), (19, 641), (3, 7)]),
            None,
            "a window larger than the picture"
        );
        assert_eq!(size_with(&[(5, 5), (19, 641), (17, 481), (1, 0)]), None, "an unknown chroma format");
        assert_eq!(size_with(&[(3, 2), (32, 0), (32, 1), (17, 481), (1, 0)]), None, "a width of more than 32 bits");
    }
}
