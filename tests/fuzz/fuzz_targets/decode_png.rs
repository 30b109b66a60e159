//! Fuzzes the decoder of PNG, as the child process calls it. The input is a file.
#![no_main]

mod decoding;

use libfuzzer_sys::fuzz_target;
use valet::model::Format;

use self::decoding::assert_decodes;

fuzz_target!(|file: &[u8]| {
    let mut file = file.to_vec();
    repair_checksums(&mut file);
    assert_decodes(Format::Png, &file);
});

/// Writes the correct checksum into each chunk: the decoder reads no chunk with a wrong one.
fn repair_checksums(file: &mut [u8]) {
    // After the signature of eight bytes.
    let mut at = 8;
    while let Some(length) = file.get(at..).and_then(|rest| rest.first_chunk()) {
        let length = u32::from_be_bytes(*length) as usize;
        let Some(content) = file.get(at + 4..at.saturating_add(8).saturating_add(length)) else { return };
        let checksum = crc32fast::hash(content).to_be_bytes();
        at += 8 + length;
        let Some(stored) = file.get_mut(at..at + 4) else { return };
        stored.copy_from_slice(&checksum);
        at += 4;
    }
}
