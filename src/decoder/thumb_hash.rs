//! ThumbHash (<https://evanw.github.io/thumbhash/>) of an image without alpha: the published algorithm, as
//! `clients/js/src/thumbhash.js` has it.

use std::f64::consts::PI;

/// The lowest frequencies of a channel.
struct Frequencies {
    /// The mean of the channel.
    dc: f64,
    /// The largest amplitude of the other frequencies.
    scale: f64,
    /// The other frequencies, scaled to the range from 0 to 1.
    ac: Vec<f64>,
}

/// Returns the hash of an image of at most 100 by 100 pixels, with three bytes for each pixel.
#[must_use]
pub fn thumb_hash(width: u32, height: u32, rgb: &[u8]) -> Vec<u8> {
    let channel = |mix: fn([f64; 3]) -> f64| -> Vec<f64> {
        let pixels = rgb.as_chunks::<3>().0.iter();
        pixels.map(|pixel| mix(pixel.map(|value| f64::from(value) * (1.0 / 255.0)))).collect()
    };
    let luminance = channel(|[red, green, blue]| (red + green + blue) / 3.0);
    let yellow_blue = channel(|[red, green, blue]| f64::midpoint(red, green) - blue);
    let red_green = channel(|[red, green, _]| red - green);

    let longer = f64::from(width.max(height));
    let extent = |side: u32| round(7.0 * f64::from(side) / longer).max(1);
    let (across, down) = (extent(width), extent(height));
    let l = transform(&luminance, width, height, across.max(3), down.max(3));
    let p = transform(&yellow_blue, width, height, 3, 3);
    let q = transform(&red_green, width, height, 3, 3);

    let is_landscape = width > height;
    let head =
        round(63.0 * l.dc) | round(31.5 + 31.5 * p.dc) << 6 | round(31.5 + 31.5 * q.dc) << 12 | round(31.0 * l.scale) << 18;
    let shorter = if is_landscape { down } else { across };
    let shape = shorter | round(63.0 * p.scale) << 3 | round(63.0 * q.scale) << 9 | u32::from(is_landscape) << 15;
    let [first, second, third, _] = head.to_le_bytes();
    let [fourth, fifth, ..] = shape.to_le_bytes();
    let mut hash = vec![first, second, third, fourth, fifth];
    let nibbles: Vec<_> =
        [l, p, q].iter().flat_map(|channel| &channel.ac).map(|value| round(15.0 * value).to_le_bytes()[0]).collect();
    hash.extend(nibbles.chunks(2).map(|pair| pair[0] | pair.get(1).copied().unwrap_or(0) << 4));
    hash
}

/// Rounds a number that is not negative, halves up.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn round(value: f64) -> u32 {
    (value + 0.5).floor() as u32
}

/// Returns the upper left triangle of the cosine transform, of `across` by `down` frequencies.
fn transform(channel: &[f64], width: u32, height: u32, across: u32, down: u32) -> Frequencies {
    let (columns, rows) = (waves(width, across), waves(height, down));
    let at = |x: usize, y: usize| -> f64 {
        // The products are added in the order of the client's code, so that rounding errors are the same: a frequency that the
        // image does not have consists of them alone, and lies halfway between two values of the hash.
        let lines = channel.chunks_exact(width as usize).zip(&rows[y]);
        let products = lines.flat_map(|(line, fy)| line.iter().zip(&columns[x]).map(move |(value, fx)| value * fx * fy));
        products.fold(0.0, |sum, product| sum + product) / (f64::from(width) * f64::from(height))
    };
    let mut ac = Vec::new();
    for y in 0..down {
        let first = u32::from(y == 0);
        ac.extend((first..across).take_while(|x| x * down < across * (down - y)).map(|x| at(x as usize, y as usize)));
    }
    let scale = ac.iter().fold(0.0, |scale: f64, value| scale.max(value.abs()));
    if scale > 0.0 {
        ac.iter_mut().for_each(|value| *value = 0.5 + 0.5 / scale * *value);
    }
    Frequencies { dc: at(0, 0), scale, ac }
}

/// Returns the first `count` cosine waves along a side, each as its values at the pixels.
fn waves(side: u32, count: u32) -> Vec<Vec<f64>> {
    let wave =
        |frequency: u32| (0..side).map(move |at| (PI / f64::from(side) * f64::from(frequency) * (f64::from(at) + 0.5)).cos());
    (0..count).map(|frequency| wave(frequency).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::thumb_hash;

    /// The hashes are those of `clients/js/src/thumbhash.js`.
    #[test]
    fn hashes_are_those_of_the_client_package() {
        // Gradients of 12 by 8 and 8 by 12 pixels, and one pixel.
        let gradients = |width: u32, height: u32| -> Vec<u8> {
            let pixels = (0..height).flat_map(move |y| (0..width).map(move |x| [x * 20, y * 30, (x + y) * 10]));
            pixels.flatten().map(|value| value.to_le_bytes()[0]).collect()
        };
        assert_same(&thumb_hash(12, 8, &gradients(12, 8)), LANDSCAPE);
        assert_same(&thumb_hash(8, 12, &gradients(8, 12)), PORTRAIT);
        assert_same(&thumb_hash(1, 1, &[200, 100, 50]), PIXEL);
    }

    /// Asserts equal headers, and coefficients of four bits that differ by one at most: a gradient has coefficients of zero,
    /// halfway between two values, which the last bit of a sum rounds up or down.
    fn assert_same(hash: &[u8], expected: &[u8]) {
        let coefficients = |hash: &[u8]| -> Vec<u8> { hash[HEADER..].iter().flat_map(|byte| [byte & 15, byte >> 4]).collect() };
        assert_eq!((hash.len(), &hash[..HEADER]), (expected.len(), &expected[..HEADER]));
        let (ours, theirs) = (coefficients(hash), coefficients(expected));
        assert!(ours.iter().zip(&theirs).all(|(one, other)| one.abs_diff(*other) <= 1), "{ours:?} {theirs:?}");
    }

    /// Bytes before the coefficients of an opaque image.
    const HEADER: usize = 5;

    const LANDSCAPE: &[u8] = &[153, 8, 14, 21, 152, 112, 135, 135, 129, 136, 120, 135, 136, 120, 135, 135, 120, 128, 7, 247, 136];
    const PORTRAIT: &[u8] = &[213, 199, 9, 45, 20, 112, 135, 113, 136, 23, 136, 152, 135, 136, 88, 167, 136, 142, 32, 168, 248];
    const PIXEL: &[u8] =
        &[29, 203, 58, 207, 50, 8, 247, 8, 136, 135, 136, 112, 143, 112, 136, 248, 8, 136, 128, 128, 8, 8, 136, 0];
}
