//! Fuzzes JSON bodies, parsed as every type that clients send. The input is a body.
#![no_main]

use std::{collections::HashSet, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use valet::http::{fuzzing::BODIES, problem::Code};

/// All words of problem texts. Any other word in a refusal was copied from the body, which must not happen.
const WORDS: &str = "
    Problem code InvalidRequest detail errors FieldError field message headers is for uppy false
    The request body is not valid JSON
    A required member is missing is required
    A member appears more than once must appear once
    A string contains half of a UTF-16 surrogate pair Send whole characters must contain whole characters
    The request body has an unknown member must have no other members than or one of
    A member has a value of the wrong type must be
    a string an integer an object a sequence a map any valid JSON value PUT POST GET or DELETE
    email password currentPassword newPassword refreshToken
    fileName contentType size sha256 caption preview thumbHash items ids idempotencyKey
    partSize partChecksums parts partNumber PartNumber ETag none number checksum sha
    filename type metadata method key uploadId expiresIn
";

static KNOWN: LazyLock<HashSet<&str>> = LazyLock::new(|| words(WORDS).collect());

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_ascii_punctuation() || c.is_ascii_digit() || c.is_ascii_whitespace())
        .filter(|word| !word.is_empty())
}

fuzz_target!(|bytes: &[u8]| {
    for read in BODIES {
        match read(bytes) {
            Ok(()) => {
                let value: serde_json::Value = serde_json::from_slice(bytes).expect("an accepted body is JSON");
                assert!(value.is_object());
            }
            Err(problem) => {
                assert_eq!(problem.code, Code::InvalidRequest);
                let text = format!("{problem:?}");
                let strange = words(&text).find(|word| !KNOWN.contains(word));
                assert_eq!(strange, None, "not a word of ours: {text}");
            }
        }
    }
});
