//! Rules for new passwords: long enough and not common (NIST SP 800-63B section 3.1.1.2). No I/O.
//!
//! There are no composition rules. zxcvbn estimates how many guesses a password withstands from common passwords, words, names,
//! keyboard rows, sequences, repeats and dates, and from this service's name and the account's address.

use std::{borrow::Cow, collections::HashSet};

use crate::model::Email;

/// Minimum length of a new password in code points, unless `PASSWORD_MIN_LENGTH` requires more.
pub const MIN_CHARS: usize = 12;
/// Maximum length of a password in bytes: a longer one adds no security, and costs time to hash.
pub const MAX_BYTES: usize = 1024;
/// Guesses that a password must withstand, as a power of ten. Rate limits allow attackers a few hundred guesses a day at one
/// account.
const MIN_GUESSES_LOG10: f64 = 7.0;
/// Maximum length of a part. zxcvbn takes seconds for a hundred ambiguous characters; a part suffices to judge the strength.
const PART_CHARS: usize = 32;
/// Characters that zxcvbn substitutes by letters in every combination: its time doubles with each kind of them in a part.
const LOOK_ALIKES: &str = "4@8({[<369!1|0$5+7%2";
/// Maximum number of kinds of look-alikes in a part. zxcvbn 3.1 takes some 11 ms for 32 characters with 12 kinds, 36 ms with 16.
const MAX_LOOK_ALIKES: usize = 12;
/// Maximum number of parts that are judged. Together with the bounds above, no password takes more than some 35 ms of a core.
const MAX_PARTS: usize = 3;

/// Returns why a new password is too weak for this address's account, as the end of a sentence that begins with "the password".
/// `min_chars` is in code points.
#[must_use]
pub fn find_weakness(password: &str, email: &Email, min_chars: usize) -> Option<Cow<'static, str>> {
    if password.len() > MAX_BYTES {
        return Some("must be at most 1024 bytes long".into());
    }
    if password.chars().count() < min_chars {
        return Some(format!("must be at least {min_chars} characters long; a few words are easy to remember").into());
    }
    let known = known_words(email);
    let known: Vec<_> = known.iter().map(String::as_str).collect();
    let lower = password.to_lowercase();
    // Replaces the longest word first. Each known word counts as one letter, even if a cut between parts would divide it.
    let rest = known.iter().fold(lower.clone(), |rest, word| rest.replace(word, "v"));
    let contains_known_words = rest != lower;
    let chars: Vec<_> = if contains_known_words { rest.chars().collect() } else { password.chars().collect() };
    // One part that is hard to guess suffices.
    if parts_to_judge(&chars).iter().any(|part| is_hard_to_guess(&part.iter().collect::<String>(), &known)) {
        return None;
    }
    let why = if contains_known_words {
        "must not be made of this service's name or the email address; take a few words that have nothing to do with them"
    } else {
        "must not be a common password, a repetition, or keys and letters in their order: it would be guessed early; a few \
         words that do not belong together are better"
    };
    Some(why.into())
}

/// Returns the words that an attacker tries first: the service's name, the address, and the parts of its local part.
fn known_words(email: &Email) -> Vec<String> {
    let address = email.key();
    let local = address.split('@').next().unwrap_or(address);
    let parts = local.split(|c: char| !c.is_alphanumeric()).filter(|part| part.chars().count() > 2);
    let whole = ["valet", address, local];
    let mut all: Vec<_> = whole.into_iter().chain(parts).filter(|word| word.chars().count() > 2).map(str::to_owned).collect();
    all.sort_by_key(|word| std::cmp::Reverse(word.len()));
    all
}

/// Returns the parts with the most distinct characters, each once: a repeated part is as weak as the first.
fn parts_to_judge(chars: &[char]) -> Vec<&[char]> {
    let distinct = |part: &[char]| part.iter().collect::<HashSet<_>>().len();
    let mut seen = HashSet::new();
    let mut parts: Vec<_> = parts(chars).into_iter().filter(|part| seen.insert(*part)).collect();
    parts.sort_by_key(|part| std::cmp::Reverse(distinct(part)));
    parts.truncate(MAX_PARTS);
    parts
}

/// Cuts a password before the character that would make a part too long or too slow to judge.
fn parts(chars: &[char]) -> Vec<&[char]> {
    let (mut parts, mut rest) = (Vec::new(), chars);
    while !rest.is_empty() {
        let mut look_alikes = HashSet::new();
        let is_too_slow = |c: &char| LOOK_ALIKES.contains(*c) && look_alikes.insert(*c) && look_alikes.len() > MAX_LOOK_ALIKES;
        let longest = &rest[..rest.len().min(PART_CHARS)];
        let end = longest.iter().position(is_too_slow).unwrap_or(longest.len());
        let (part, after) = rest.split_at(end);
        parts.push(part);
        rest = after;
    }
    parts
}

/// Returns whether a part of a password withstands enough guesses.
fn is_hard_to_guess(part: &str, known: &[&str]) -> bool {
    zxcvbn::zxcvbn(part, known).guesses_log10() >= MIN_GUESSES_LOG10
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Returns the weakness of a password of ada.lovelace@example.com.
    fn weakness_for_ada(password: &str) -> Option<Cow<'static, str>> {
        find_weakness(password, &Email::parse("ada.lovelace@example.com").unwrap(), MIN_CHARS)
    }

    #[test]
    fn a2_the_minimum_length_is_a_setting() {
        let ada = Email::parse("ada.lovelace@example.com").unwrap();
        assert!(find_weakness("drywallbutex42", &ada, 15).unwrap().contains("at least 15 characters"));
        assert_eq!(find_weakness("drywallbutex428", &ada, 15), None);
    }

    #[test]
    fn a2_length_is_in_code_points() {
        assert!(weakness_for_ada("drywallbute").unwrap().contains("12 characters"));
        assert_eq!(weakness_for_ada("drywallbutex"), None);
        assert!(weakness_for_ada("🦀🐌🌋🪁🎻🧭🪺🛶🎷🥝🪴").unwrap().contains("12 characters"));
        assert_eq!(weakness_for_ada("🦀🐌🌋🪁🎻🧭🪺🛶🎷🥝🪴🦔"), None);
        let long: String = (0..1024_u32).map(|n| char::from(b'a' + u8::try_from(n * n * 7 % 26).unwrap())).collect();
        assert_eq!(weakness_for_ada(&long), None);
        assert!(weakness_for_ada(&(long + "x")).unwrap().contains("1024 bytes"));
    }

    #[test]
    fn a3_there_are_no_rules_of_composition() {
        for good in [
            "three small blue boats",
            "seven green kites over the bay",
            "correct horse battery staple",
            "lowercaseletters",
            "übermütige Zwölfboxkämpfer",
            "七つの緑の凧が湾の上に舞う",
            "  leading and trailing  ",
        ] {
            assert_eq!(weakness_for_ada(good), None, "{good}");
        }
    }

    #[test]
    fn a4_passwords_that_are_guessed_first_are_refused() {
        let long_repeat = "passwordpassword".repeat(20);
        for bad in [
            "passwordpassword",
            "qwertyuiopasdfghjkl",
            "password1234",
            "Password123!",
            "P@ssw0rd!P@ssw0rd!",
            "123456789012",
            "abcdefghijkl",
            "aaaaaaaaaaaaaaa",
            "abcabcabcabcabc",
            "iloveyouiloveyou",
            "letmeinletmein123",
            "1q2w3e4r5t6y7u",
            "changeme12345",
            "administrator1",
            &long_repeat,
            &"🦀".repeat(12),
            &"x".repeat(1024),
        ] {
            assert!(
                weakness_for_ada(bad).is_some_and(|why| why.contains("common password")),
                "{bad}: {:?}",
                weakness_for_ada(bad)
            );
        }
        for own in [
            "valetvaletvalet",
            "valet-valet-valet",
            "Ada.Lovelace",
            "ada.lovelace1815",
            "lovelacelovelace",
            "ada.lovelace@example.com",
        ] {
            assert!(weakness_for_ada(own).is_some_and(|why| why.contains("email address")), "{own}: {:?}", weakness_for_ada(own));
        }
        let long = Email::parse("0123456789abcdef0123456789abcdef@example.com").unwrap();
        assert!(find_weakness("0123456789ABCDEF0123456789abcdef@example.com1", &long, MIN_CHARS).is_some(), "longer than a part");
        assert_eq!(weakness_for_ada("ada.lovelace and seven green kites"), None, "a longer password may contain the address");
        assert_eq!(
            find_weakness("ada.lovelace1815", &Email::parse("bob@example.com").unwrap(), MIN_CHARS),
            None,
            "a password may contain another account's address"
        );
    }

    /// Returns the processor time of this thread, which does not include other work of the machine; on systems without
    /// `schedstat`, the time since `began`.
    fn processor_time(began: Instant) -> Duration {
        let line = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
        // Zero if the kernel does not measure it.
        let nanoseconds = line.and_then(|line| line.split(' ').next()?.parse().ok()).filter(|&nanoseconds| nanoseconds > 0);
        nanoseconds.map_or_else(|| began.elapsed(), Duration::from_nanos)
    }

    /// Measures the slowest known kinds of passwords in processor time, with room for a core that is three times slower.
    /// `Cargo.toml` has zxcvbn optimized in tests, too.
    #[test]
    fn a7_no_password_takes_long_to_judge() {
        // The first call loads the dictionaries, which is not measured.
        weakness_for_ada("any password will do");
        for slow in [
            LOOK_ALIKES.repeat(51),
            "aA1!".repeat(256),
            "1!|l".repeat(256),
            "|1!7".repeat(256),
            "p@$$w0rd".repeat(128),
            "12345678901234567890123456789012".repeat(32),
            "7{6!|[+3194<rb[{c1zn7{iz4{!s6wl+".repeat(32),
            "a4@b8c({[<e3g69i1!|l1|7o0s$5t+7x%z2".repeat(29),
        ] {
            let judged = || {
                let began = Instant::now();
                let before = processor_time(began);
                weakness_for_ada(&slow);
                processor_time(began).saturating_sub(before)
            };
            let took = (0..5).map(|_| judged()).min().unwrap();
            assert!(took < Duration::from_millis(150), "{took:?} for {slow}");
        }
    }

    #[test]
    fn parts_of_a_password_are_few_and_short_and_cover_it() {
        let long: Vec<char> = LOOK_ALIKES.repeat(51).chars().collect();
        assert_eq!(parts(&long).concat(), long);
        assert!(parts(&long).iter().all(|part| part.len() <= PART_CHARS && !part.is_empty()));
        assert_eq!(parts_to_judge(&"password".repeat(128).chars().collect::<Vec<_>>()).len(), 1, "equal parts are one");
        let mixed = format!("{}{}{}{}", "a".repeat(32), "b".repeat(32), "c".repeat(32), "seven green kites over the bay  ");
        let mixed: Vec<char> = mixed.chars().collect();
        assert!(parts_to_judge(&mixed)[0].starts_with(&['s', 'e', 'v']), "the one that may be strong comes first");
    }
}
