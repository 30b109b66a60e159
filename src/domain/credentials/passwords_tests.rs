//! Tests of hashing passwords: its parameters, normalization, and the shares of networks in the pool.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::model::NetworkPrefix;

/// Minimum length of a new password, which these tests do not depend on.
const MIN_CHARS: usize = 12;

/// Returns the origin of a request from this address.
fn origin(address: &str) -> RequestOrigin {
    RequestOrigin { site: NetworkPrefix::site(address.parse().unwrap()), user: None }
}

#[tokio::test]
async fn a1_passwords_are_normalized_and_hashed_with_salt_and_owasp_parameters() {
    let passwords = Passwords::new(MIN_CHARS).unwrap();
    let permit = passwords.acquire(origin("192.0.2.1")).unwrap();
    let hash = passwords.hash(&permit, Password::new("correct horse é")).await.unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    assert_ne!(hash, passwords.hash(&permit, Password::new("correct horse é")).await.unwrap());
    let verify = |text: &str| passwords.verify(&permit, Password::new(text), Some(hash.clone().into()));
    assert_eq!(verify("correct horse é").await, Ok(PasswordMatch::Match));
    assert_eq!(
        verify("correct horse e\u{301}").await,
        Ok(PasswordMatch::Match),
        "composed and decomposed letters are the same password"
    );
    assert_eq!(verify("correct horse e").await, Ok(PasswordMatch::Mismatch));
    assert_eq!(passwords.verify(&permit, Password::new("correct horse é"), None).await, Ok(PasswordMatch::Mismatch));
}

#[tokio::test]
async fn a1_a_hash_of_other_parameters_is_verified_and_reported() {
    let passwords = Passwords::new(MIN_CHARS).unwrap();
    let permit = passwords.acquire(origin("192.0.2.1")).unwrap();
    let weaker = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8192, 1, 1, None).unwrap());
    let other_kind = Argon2::new(Algorithm::Argon2i, Version::V0x13, hasher().params().clone());
    for old in [weaker, other_kind] {
        let hash = old.hash_password(b"correct horse").unwrap().to_string();
        let verify = |text: &str| passwords.verify(&permit, Password::new(text), Some(hash.clone().into()));
        assert_eq!(verify("correct horse").await, Ok(PasswordMatch::OutdatedHash), "{hash}");
        assert_eq!(verify("correct horsf").await, Ok(PasswordMatch::Mismatch), "{hash}");
    }
}

/// One network fills its whole share of the queue; the password of another network is hashed before the last of its passwords.
#[tokio::test(flavor = "multi_thread")]
async fn a7_a_network_that_has_its_share_is_refused_at_once_and_no_other_waits_for_it() {
    let passwords = Passwords::new(MIN_CHARS).unwrap();
    let permits: Vec<_> = std::iter::from_fn(|| passwords.acquire(origin("192.0.2.1")).ok()).collect();
    assert_eq!(passwords.acquire(origin("192.0.2.250")).map(drop), Err(Overloaded), "the address is in the same /24");
    let hashes = permits.into_iter().map(|permit| {
        let passwords = passwords.clone();
        tokio::spawn(async move { passwords.hash(&permit, Password::new("x")).await })
    });
    let hashes: Vec<_> = hashes.collect();
    while passwords.load().running == 0 {
        tokio::task::yield_now().await;
    }
    let permit = passwords.acquire(origin("198.51.100.1")).unwrap();
    passwords.hash(&permit, Password::new("y")).await.unwrap();
    let done = hashes.iter().filter(|hash| hash.is_finished()).count();
    assert!(done < hashes.len(), "the other network does not wait for all of these hashes");
    hashes.into_iter().for_each(|hash| hash.abort());
}

#[test]
fn debug_of_a_password_does_not_contain_it() {
    assert!(!format!("{:?}", Password::new("canary")).contains("canary"));
}
