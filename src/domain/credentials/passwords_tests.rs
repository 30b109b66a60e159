//! Passwords that must pass, and those that must not.
#![allow(clippy::unwrap_used)]

use super::*;

#[tokio::test]
async fn a1_argon2id_at_owasp_parameters_salted_and_normalised() {
    let passwords = Passwords::new(12).unwrap();
    let hash = passwords.hash(Password::new("correct horse é")).await.unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    assert_ne!(hash, passwords.hash(Password::new("correct horse é")).await.unwrap());
    let verify = |text: &str| passwords.verify(passwords.place().unwrap(), Password::new(text), Some(hash.clone().into()));
    assert_eq!(verify("correct horse é").await, Ok(Verdict::Right));
    assert_eq!(verify("correct horse e\u{301}").await, Ok(Verdict::Right), "composed and decomposed letters are one password");
    assert_eq!(verify("correct horse e").await, Ok(Verdict::Wrong));
    assert_eq!(passwords.verify(passwords.place().unwrap(), Password::new("correct horse é"), None).await, Ok(Verdict::Wrong));
}

#[tokio::test]
async fn a1_a_hash_of_other_parameters_is_verified_by_its_own_and_told() {
    let passwords = Passwords::new(12).unwrap();
    let weaker = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8192, 1, 1, None).unwrap());
    let other_kind = Argon2::new(Algorithm::Argon2i, Version::V0x13, hasher().params().clone());
    for old in [weaker, other_kind] {
        let hash = old.hash_password(b"correct horse").unwrap().to_string();
        let verify = |text: &str| passwords.verify(passwords.place().unwrap(), Password::new(text), Some(hash.clone().into()));
        assert_eq!(verify("correct horse").await, Ok(Verdict::Outdated), "{hash}");
        assert_eq!(verify("correct horsf").await, Ok(Verdict::Wrong), "{hash}");
    }
}

#[tokio::test]
async fn a7_a_full_queue_refuses_at_once() {
    let passwords = Passwords::new(12).unwrap();
    let _all =
        passwords.queued.clone().try_acquire_many_owned(u32::try_from(passwords.queued.available_permits()).unwrap()).unwrap();
    assert_eq!(passwords.place().map(drop), Err(Busy));
    assert_eq!(passwords.hash(Password::new("x")).await, Err(Busy));
}

#[test]
fn debug_of_a_password_is_silent() {
    assert!(!format!("{:?}", Password::new("canary")).contains("canary"));
}
