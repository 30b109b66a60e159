//! Files for `.ci/differential`, which shows them to Chromium and Pillow, with Valet's verdicts.

use std::{env, fmt::Write, fs, path::PathBuf};

use super::{fixtures, structures, verdict};

/// Generates numbers (SplitMix64): the same seed gives the same files everywhere.
struct Random(u64);

impl Random {
    /// Returns a random number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ mixed >> 31) % bound as u64).unwrap()
    }
}

/// Returns the offsets of the elements in the first 2 KiB that a parser reads: boxes, segments, chunks, blocks.
fn elements(file: &[u8]) -> Vec<usize> {
    let tags = file
        .windows(4)
        .enumerate()
        .filter(|(_, window)| window.iter().all(u8::is_ascii_alphanumeric))
        .map(|(at, _)| at.saturating_sub(4));
    let markers = file.windows(2).enumerate().filter(|(_, window)| window[0] == 0xFF && window[1] > 0xBF).map(|(at, _)| at);
    tags.chain(markers).filter(|at| *at < 2048).collect()
}

/// Returns the file with one to three changes near the beginnings of its elements: other bytes, bytes inserted or removed, elements
/// doubled or removed.
fn mutated(file: &[u8], random: &mut Random) -> Vec<u8> {
    let mut file = file.to_vec();
    for _ in 0..=random.below(3) {
        let elements = elements(&file);
        if elements.is_empty() || file.len() < 32 {
            break;
        }
        let element = elements[random.below(elements.len())];
        let at = (element + random.below(16)).min(file.len() - 1);
        let other = elements[random.below(elements.len())];
        match random.below(9) {
            0 => file[at] ^= 1 << random.below(8),
            1 => file[at] = u8::try_from(random.below(256)).unwrap(),
            2 => file[at] = [0, 1, 2, 0x7F, 0x80, 0xFF][random.below(6)],
            3 => file[at] = file[at].wrapping_add(1),
            4 => file[at] = file[at].wrapping_sub(1),
            5 => drop(file.remove(at)),
            6 => file.insert(at, u8::try_from(random.below(256)).unwrap()),
            7 => {
                let (from, to) = (element.min(other), element.max(other));
                let piece = file[from..to].to_vec();
                file.splice(from..from, piece);
            }
            _ => drop(file.drain(element.min(other)..element.max(other))),
        }
    }
    file
}

/// Writes the structures, the fixtures and mutants of both, and `verdicts.jsonl`, into the folder that `VALET_DIFFERENTIAL` names;
/// `VALET_MUTANTS` is the number of mutants, `VALET_SEED` their seed.
#[test]
#[ignore = "a part of .ci/differential"]
fn files_and_verdicts_are_written_for_the_comparison() {
    let folder = PathBuf::from(env::var("VALET_DIFFERENTIAL").unwrap());
    let number = |name: &str| env::var(name).map_or(0, |text| text.parse().unwrap());
    let mut files: Vec<(String, Vec<u8>)> = structures::all()
        .into_iter()
        .map(|structure| (format!("{}: {}", structure.content_type, structure.name), structure.bytes))
        .collect();
    files.extend(fixtures().into_iter().map(|fixture| (fixture.name, fixture.bytes)));
    let small: Vec<_> = files.iter().filter(|(_, bytes)| bytes.len() < 8192).cloned().collect();
    let mut random = Random(number("VALET_SEED"));
    for mutant in 0..number("VALET_MUTANTS") {
        let (name, bytes) = &small[random.below(small.len())];
        files.push((format!("mutant {mutant} of {name}"), mutated(bytes, &mut random)));
    }
    let mut verdicts = String::new();
    for (at, (name, bytes)) in files.iter().enumerate() {
        fs::write(folder.join(format!("{at}.bin")), bytes).unwrap();
        let found = match verdict(bytes) {
            Ok(content) => format!(r#""format":"{:?}","width":{},"height":{}"#, content.format, content.width, content.height),
            Err(error) => format!(r#""refusal":"{}""#, error.as_str()),
        };
        writeln!(verdicts, r#"{{"file":"{at}.bin","name":{},{found}}}"#, serde_json::to_string(name).unwrap()).unwrap();
    }
    fs::write(folder.join("verdicts.jsonl"), verdicts).unwrap();
}
