//! Proptest strategies for hostile text: arbitrary text, and valid text with a mutation.

use proptest::{collection::vec, prelude::*, sample::Index};

/// Generates arbitrary characters, lossily decoded bytes, and text that resembles base64.
pub fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        vec(any::<char>(), 0..80).prop_map(String::from_iter),
        vec(any::<u8>(), 0..300).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        "[A-Za-z0-9+/_=.@\"\\\\ -]{0,100}",
    ]
}

/// Generates mutations of this text; never the text itself.
pub fn mutated(valid: String) -> impl Strategy<Value = String> {
    let odd = prop_oneof![
        any::<char>(),
        prop::char::ranges(vec!['!'..='~'].into()),
        prop::sample::select(vec!['=', ' ', '.', '\0', '\n', 'é', '"']),
    ];
    let changes = vec((0..6_u8, any::<Index>(), any::<Index>(), odd), 1..4);
    let start = valid.clone();
    let changed = changes.prop_map(move |changes| {
        let mut text: Vec<char> = start.chars().collect();
        for (kind, index, other, odd) in changes {
            // A character can also be inserted after the last one.
            let (insert_index, index) = (index.index(text.len() + 1), index.index(text.len().max(1)));
            match kind {
                0 => text.insert(insert_index, odd),
                _ if text.is_empty() => text.push(odd),
                1 => text[index] = odd,
                2 => drop(text.remove(index)),
                3 => text.truncate(index),
                4 => {
                    let other = other.index(text.len());
                    text.swap(index, other);
                }
                _ => text[index] = if text[index].is_ascii_lowercase() { text[index].to_ascii_uppercase() } else { odd },
            }
        }
        String::from_iter(text)
    });
    changed.prop_filter("the same", move |changed| *changed != valid)
}
