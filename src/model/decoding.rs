//! The messages between a worker and the child process that decodes one image (`valet decode`). All numbers are little-endian.
//!
//! The worker writes a [`DecodeRequest`], then the file. The child writes its [`Sandbox`] before it reads, and a [`DecodeReply`]
//! after it has decoded. The worker trusts no byte of the reply: the child has read an untrusted file.

use super::{Format, Orientation, ThumbHash};

/// Longer sides of the pictures that are made, in pixels, ascending.
pub const EDGES: [u16; 2] = [640, 1600];

/// Maximum bytes of a picture, by its index in [`EDGES`].
pub const MAX_PICTURE_BYTES: [usize; 2] = [256 << 10, 2 << 20];

/// Maximum bytes of a file that is decoded.
pub const MAX_FILE_BYTES: u32 = 100 << 20;

/// Maximum bytes of a child's output.
pub const MAX_OUTPUT_BYTES: usize = 4 << 20;

/// Returns the size of an image that is reduced until its longer side is at most `edge`. An image is never enlarged, and no side
/// is 0.
#[must_use]
pub fn fit(width: u16, height: u16, edge: u16) -> (u16, u16) {
    let longer = u32::from(width.max(height)).max(1);
    let reduced = |side: u16| {
        let reduced = (u32::from(side) * u32::from(edge) + longer / 2) / longer;
        u16::try_from(reduced).unwrap_or(edge).max(1)
    };
    if longer <= u32::from(edge) { (width.max(1), height.max(1)) } else { (reduced(width), reduced(height)) }
}

/// A request to decode a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeRequest {
    /// Verified format of the file, which alone determines the decoder.
    pub format: Format,
    /// Rotation and mirroring for display.
    pub orientation: Orientation,
    /// Width as displayed, in pixels.
    pub width: u16,
    /// Height as displayed, in pixels.
    pub height: u16,
    /// Length of the file in bytes.
    pub file_bytes: u32,
}

impl DecodeRequest {
    /// Length of the message in bytes.
    pub const BYTES: usize = 14;
    /// First bytes of the message, with its version.
    const START: [u8; 4] = *b"VDQ1";

    /// Returns the message.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let format = Format::ALL.iter().position(|format| *format == self.format).unwrap_or_default();
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&Self::START);
        bytes[4] = u8::try_from(format).unwrap_or(u8::MAX);
        bytes[5] = self.orientation.number();
        bytes[6..8].copy_from_slice(&self.width.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.height.to_le_bytes());
        bytes[10..].copy_from_slice(&self.file_bytes.to_le_bytes());
        bytes
    }

    /// Parses a message.
    #[must_use]
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.array()? != Self::START {
            return None;
        }
        let format = *Format::ALL.get(usize::from(reader.u8()?))?;
        let orientation = Orientation::new(u16::from(reader.u8()?))?;
        Some(Self { format, orientation, width: reader.u16()?, height: reader.u16()?, file_bytes: reader.u32()? })
    }
}

/// The restrictions that a child found in force before it read its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sandbox {
    /// Whether limits of the kernel bound the child's memory and processor time, and keep it from making files and processes.
    pub has_limits: bool,
    /// Whether the kernel ends the child at any system call that decoding does not need.
    pub has_filter: bool,
    /// Whether other processes of the same user can neither trace the child nor read its memory.
    pub is_untraceable: bool,
    /// Whether the child inherited nothing but its standard streams: no other file and no variable of the environment.
    pub has_nothing_inherited: bool,
}

impl Sandbox {
    /// Length of the message in bytes.
    pub const BYTES: usize = 5;
    /// No restriction.
    pub const NONE: Self = Self { has_limits: false, has_filter: false, is_untraceable: false, has_nothing_inherited: false };
    /// All restrictions, as Linux has them.
    pub const COMPLETE: Self = Self { has_limits: true, has_filter: true, is_untraceable: true, has_nothing_inherited: true };
    /// First bytes of the message, with its version.
    const START: [u8; 4] = *b"VDC1";

    /// Returns the message.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let [a, b, c, d] = Self::START;
        let flags = [self.has_limits, self.has_filter, self.is_untraceable, self.has_nothing_inherited];
        [a, b, c, d, flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag))]
    }

    /// Reads the message.
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (start, flags) = (reader.array()?, reader.u8()?);
        let has = |bit: u8| flags >> bit & 1 == 1;
        // Four flags are known: any higher bit makes the message malformed.
        (start == Self::START && flags < 16).then(|| Self {
            has_limits: has(0),
            has_filter: has(1),
            is_untraceable: has(2),
            has_nothing_inherited: has(3),
        })
    }
}

/// A JPEG that the child made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
    /// The file.
    pub jpeg: Vec<u8>,
}

/// The pictures that a child made of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pictures {
    /// The placeholder.
    pub thumb_hash: ThumbHash,
    /// A picture for each of [`EDGES`] in ascending order, without those that would equal the one before: an image is never
    /// enlarged.
    pub pictures: Vec<Picture>,
}

/// Reason why an image has no pictures. Another attempt would fail as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// A kind of file that no decoder reads.
    #[error("no decoder reads this kind of image")]
    Unsupported,
    /// More pixels or bytes than are decoded.
    #[error("the image has more pixels or bytes than are decoded")]
    TooBig,
    /// A broken file.
    #[error("the file is broken")]
    Corrupt,
}

/// The result of a child.
pub type DecodeReply = Result<Pictures, Undecodable>;

/// First byte of a reply with pictures.
const MADE: u8 = 0;
/// First byte of the reply [`Undecodable::Unsupported`].
const UNSUPPORTED: u8 = 1;
/// First byte of the reply [`Undecodable::TooBig`].
const TOO_BIG: u8 = 2;
/// First byte of the reply [`Undecodable::Corrupt`].
const CORRUPT: u8 = 3;

/// Returns the message of a result.
#[must_use]
pub fn write_reply(reply: &DecodeReply) -> Vec<u8> {
    let made = match reply {
        Ok(made) => made,
        Err(Undecodable::Unsupported) => return vec![UNSUPPORTED],
        Err(Undecodable::TooBig) => return vec![TOO_BIG],
        Err(Undecodable::Corrupt) => return vec![CORRUPT],
    };
    let hash = made.thumb_hash.as_bytes();
    let mut bytes = vec![MADE, u8::try_from(hash.len()).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(hash);
    bytes.push(u8::try_from(made.pictures.len()).unwrap_or(u8::MAX));
    for Picture { width, height, jpeg } in &made.pictures {
        bytes.extend_from_slice(&width.to_le_bytes());
        bytes.extend_from_slice(&height.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(jpeg.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(jpeg);
    }
    bytes
}

/// The output of a child: its sandbox, and its result if it wrote one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeOutput {
    /// The restrictions that were in force.
    pub sandbox: Sandbox,
    /// The result; `None` if the output ends before it, or if it is malformed.
    pub reply: Option<DecodeReply>,
}

impl DecodeOutput {
    /// Parses the whole output of a child. Returns `None` if it does not begin with a sandbox. Does not check the pictures.
    #[must_use]
    pub fn parse(output: &[u8]) -> Option<Self> {
        let mut reader = Reader(output);
        let sandbox = Sandbox::read(&mut reader)?;
        let reply = read_reply(&mut reader).filter(|_| reader.0.is_empty());
        Some(Self { sandbox, reply })
    }
}

/// Reads a reply; `None` if it is malformed or incomplete.
fn read_reply(reader: &mut Reader<'_>) -> Option<DecodeReply> {
    match reader.u8()? {
        MADE => {}
        UNSUPPORTED => return Some(Err(Undecodable::Unsupported)),
        TOO_BIG => return Some(Err(Undecodable::TooBig)),
        CORRUPT => return Some(Err(Undecodable::Corrupt)),
        _ => return None,
    }
    let hash_bytes = usize::from(reader.u8()?);
    let thumb_hash = ThumbHash::from_bytes(reader.take(hash_bytes)?.to_vec()).ok()?;
    let count = usize::from(reader.u8()?);
    if !(1..=EDGES.len()).contains(&count) {
        return None;
    }
    let mut pictures = Vec::with_capacity(count);
    for _ in 0..count {
        let (width, height, length) = (reader.u16()?, reader.u16()?, reader.u32()?);
        pictures.push(Picture { width, height, jpeg: reader.take(usize::try_from(length).ok()?)?.to_vec() });
    }
    Some(Ok(Pictures { thumb_hash, pictures }))
}

/// Reads numbers and bytes from a message; contains the bytes that are left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Takes the next `count` bytes; `None` if fewer are left.
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Takes the next `N` bytes.
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        Some(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{DecodeOutput, DecodeReply, DecodeRequest, Picture, Pictures, Sandbox, Undecodable, fit, write_reply};
    use crate::model::{Format, Orientation, ThumbHash};

    /// Returns the output of a child.
    fn output(sandbox: Sandbox, reply: &DecodeReply) -> Vec<u8> {
        [&sandbox.to_bytes()[..], &write_reply(reply)].concat()
    }

    fn two_pictures() -> Pictures {
        let picture = |width, height, byte| Picture { width, height, jpeg: vec![byte; 300] };
        Pictures {
            thumb_hash: ThumbHash::from_bytes(vec![7; 25]).unwrap(),
            pictures: vec![picture(640, 480, 1), picture(1600, 1200, 2)],
        }
    }

    #[test]
    fn decode_requests_are_parsed_as_they_were_written() {
        for (format, number) in Format::ALL.into_iter().zip([1, 2, 3, 6, 7, 8]) {
            let orientation = Orientation::new(number).unwrap();
            let request = DecodeRequest { format, orientation, width: 4032, height: 3024, file_bytes: 0x1234_5678 };
            assert_eq!(DecodeRequest::parse(&request.to_bytes()), Some(request));
        }
        assert_eq!(DecodeRequest::parse(b"VDQ1\x06\x01\0\0\0\0\0\0\0\0"), None, "no such format");
        assert_eq!(DecodeRequest::parse(b"VDQ1\x00\x09\0\0\0\0\0\0\0\0"), None, "no such orientation");
        assert_eq!(DecodeRequest::parse(b"VDQ0\x00\x01\0\0\0\0\0\0\0\0"), None, "another version");
    }

    #[test]
    fn decode_outputs_are_parsed_as_they_were_written() {
        let sandboxes = [
            Sandbox::NONE,
            Sandbox::COMPLETE,
            Sandbox { has_filter: false, ..Sandbox::COMPLETE },
            Sandbox { has_nothing_inherited: true, ..Sandbox::NONE },
        ];
        let replies = [Ok(two_pictures()), Err(Undecodable::Unsupported), Err(Undecodable::TooBig), Err(Undecodable::Corrupt)];
        for (sandbox, reply) in sandboxes.into_iter().zip(replies) {
            let parsed = DecodeOutput::parse(&output(sandbox, &reply));
            assert_eq!(parsed, Some(DecodeOutput { sandbox, reply: Some(reply) }));
        }
    }

    #[test]
    fn incomplete_and_lengthened_outputs_have_no_result() {
        let whole = output(Sandbox::COMPLETE, &Ok(two_pictures()));
        for length in 0..whole.len() {
            match DecodeOutput::parse(&whole[..length]) {
                None => assert!(length < Sandbox::BYTES),
                Some(parsed) => assert_eq!((parsed.sandbox, parsed.reply), (Sandbox::COMPLETE, None), "{length} bytes"),
            }
        }
        let longer = [&whole[..], b"\0"].concat();
        assert_eq!(DecodeOutput::parse(&longer).unwrap().reply, None);
    }

    #[test]
    fn images_are_reduced_and_never_enlarged() {
        let cases = [(4032, 3024, 640, 480), (3024, 4032, 480, 640), (640, 1, 640, 1), (65_535, 1, 640, 1), (3, 2, 3, 2)];
        for (width, height, reduced_width, reduced_height) in cases {
            assert_eq!(fit(width, height, 640), (reduced_width, reduced_height));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_output_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = DecodeOutput::parse(&[&Sandbox::COMPLETE.to_bytes()[..], &bytes].concat());
            let _ = DecodeOutput::parse(&bytes);
        }
    }
}
