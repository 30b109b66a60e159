//! The request and the assertions that the targets of the decoders share.

use valet::{
    decoder,
    domain::content::{Content, ContentInspector, ReadBudget},
    model::{
        Format,
        decoding::{DecodeOutput, DecodeRequest, EDGES, Sandbox, fit, write_reply},
    },
};

/// Number of pixels, at most, of an image that a target decodes: larger ones take a second each.
pub const MAX_PIXELS: u64 = 1_000_000;

/// Returns the result of the content inspection of a file; `None` if it rejects the file.
fn inspect(file: &[u8]) -> Option<Content> {
    let total = file.len() as u64;
    let mut inspector = ContentInspector::with_budget(total, MAX_PIXELS, ReadBudget { bytes: total, ..ReadBudget::DEFAULT });
    loop {
        let wanted = inspector.wanted();
        if let Some(verdict) = inspector.supply(&file[wanted.start as usize..wanted.end as usize]) {
            return verdict.ok();
        }
    }
}

/// Returns the request for a file; `None` if the inspection does not find this format.
fn request(format: Format, file: &[u8]) -> Option<DecodeRequest> {
    let Content { format: found, width, height, orientation } = inspect(file)?;
    let request = DecodeRequest {
        format,
        orientation,
        width: u16::try_from(width).ok()?,
        height: u16::try_from(height).ok()?,
        file_bytes: u32::try_from(file.len()).ok()?,
    };
    (found == format).then_some(request)
}

/// Decodes a file, and asserts that the result is one that the worker accepts.
pub fn assert_decodes(format: Format, file: &[u8]) {
    let Some(wanted) = request(format, file) else { return };
    // `decode` reports a panic of a decoder as a broken file, but libFuzzer's hook would end the process before that.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let reply = decoder::decode(&wanted, file.to_vec());
    std::panic::set_hook(hook);
    let output = [&Sandbox::COMPLETE.to_bytes()[..], &write_reply(&reply)].concat();
    assert_eq!(DecodeOutput::parse(&output).and_then(|output| output.reply).as_ref(), Some(&reply), "the parsed reply differs");
    let Ok(rendered) = reply else { return };
    let mut sizes = EDGES.map(|edge| fit(wanted.width, wanted.height, edge)).to_vec();
    sizes.dedup();
    assert!(
        rendered.pictures.iter().map(|picture| (picture.width, picture.height)).eq(sizes),
        "the pictures have the expected sizes"
    );
    for picture in rendered.pictures {
        let found = inspect(&picture.jpeg).expect("a JPEG");
        let (width, height) = (u32::from(picture.width), u32::from(picture.height));
        assert_eq!((found.format, found.width, found.height), (Format::Jpeg, width, height), "the picture has the declared size");
    }
}
