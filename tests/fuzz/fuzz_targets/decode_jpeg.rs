//! Fuzzes the decoder of JPEG, as the child process calls it. The input is a file.
#![no_main]

mod decoding;

use libfuzzer_sys::fuzz_target;
use valet::model::Format;

use self::decoding::{MAX_PIXELS, assert_decodes};

fuzz_target!(|file: &[u8]| {
    assert_decodes(Format::Jpeg, file);
    // Large images are decoded at a quarter of their size.
    let _ = valet::decoder::fuzzing::decode_quarter(file, MAX_PIXELS);
});
