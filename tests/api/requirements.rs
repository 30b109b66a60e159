//! Asserts that each requirement of uploading, confirming and deleting (docs/requirements.md) has a test whose name contains its
//! id.

use std::{collections::BTreeSet, fs, path::Path};

/// Groups of requirements, with the number of each: U1 to U15, C1 to C11, D1 to D9.
const REQUIRED: [(char, u32); 3] = [('u', 15), ('c', 11), ('d', 9)];

/// Returns the ids in the names of the tests below `folder`.
fn ids(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(ids(&path));
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("#[tokio::test") || line == "#[test]" {
                let name = lines.find_map(|line| line.trim_start_matches("async ").strip_prefix("fn ")).unwrap();
                let name = name.split('(').next().unwrap();
                let is_id = |word: &&str| word.len() > 1 && word[1..].bytes().all(|digit| digit.is_ascii_digit());
                found.extend(name.split('_').filter(is_id).map(str::to_owned));
            }
        }
    }
    found
}

#[test]
fn every_requirement_has_a_test_with_its_id() {
    let found = ids(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api"));
    let required = REQUIRED.into_iter().flat_map(|(group, count)| (1..=count).map(move |n| format!("{group}{n}")));
    let missing: Vec<_> = required.filter(|id| !found.contains(id)).collect();
    assert!(missing.is_empty(), "no test has the ids {missing:?}");
}
