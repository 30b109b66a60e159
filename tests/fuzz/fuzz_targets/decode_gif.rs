//! Fuzzes the decoder of GIF, as the child process calls it. The input is a file.
#![no_main]

mod decoding;

use libfuzzer_sys::fuzz_target;
use valet::model::Format;

use self::decoding::assert_decodes;

fuzz_target!(|file: &[u8]| assert_decodes(Format::Gif, file));
