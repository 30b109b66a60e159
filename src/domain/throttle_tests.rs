//! Tests of single limits, and of the limits that a wrong password is counted in.
#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn limit_allows_a_burst_and_then_its_rate() {
    let limit = Limit::new("x", Rate::new(10, 60));
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(limit.take("a", 1, start), Ok(()));
    }
    let refused = limit.take("a", 1, start);
    assert_eq!(refused.map_err(|refused| refused.retry_after), Err(Duration::from_secs(6)));
    assert_eq!(limit.take("b", 1, start), Ok(()), "keys are counted separately");
    let later = start + Duration::from_secs(6);
    assert_eq!(limit.take("a", 1, later), Ok(()));
    assert!(limit.take("a", 1, later).is_err(), "one in six seconds");
    let much_later = start + Duration::from_secs(3600);
    assert_eq!(
        (0..20).filter(|_| limit.take("a", 1, much_later).is_ok()).count(),
        10,
        "unused calls add up to no more than the burst"
    );
}

#[test]
fn request_for_several_is_counted_wholly_or_not_at_all() {
    let limit = Limit::new("x", Rate::new(10, 60));
    let start = Instant::now();
    assert!(limit.take("a", 6, start).is_ok());
    assert!(limit.take("a", 6, start).is_err());
    assert!(limit.take("a", 4, start).is_ok(), "the refused six were not counted");
    assert!(limit.take("b", 1000, start).is_ok(), "a cost above the burst counts as the whole burst");
    assert!(limit.take("b", 1, start).is_err());
}

#[test]
fn a6_correct_and_cancelled_attempts_do_not_count() {
    let limit = Limit::new("x", Rate::new(2, 60));
    let start = Instant::now();
    for _ in 0..5 {
        assert!(limit.take("a", 1, start).is_ok());
        limit.give_back("a", 1);
    }
    assert!(limit.take("a", 2, start).is_ok());
    assert!(limit.take("a", 1, start).is_err());
    limit.forget("a");
    assert!(limit.take("a", 2, start).is_ok());
}

#[test]
fn other_addresses_of_a_network_allow_few_more_attempts() {
    let limit = Limit::new("x", Rate::new(10, 60));
    let start = Instant::now();
    let tries = |addresses: &mut dyn Iterator<Item = String>| {
        addresses.filter(|address| limit.take_from((), address.parse().unwrap(), start).is_ok()).count()
    };
    let one_64 = &mut (0..100).map(|host| format!("2001:db8:0:1::{host:x}"));
    assert_eq!(tries(one_64), 10);
    let one_56 = &mut (0..10_000).map(|at| format!("2001:db8:0:{:x}::1", at % 256));
    assert_eq!(tries(one_56), 10, "ten more, after those of its first /64");
    let one_48 = &mut (0..10_000).map(|at| format!("2001:db8:0:{:x}::1", 256 + at));
    assert_eq!(tries(one_48), 20);
    assert_eq!(tries(&mut (0..100).map(|_| "2001:db8:1::1".to_owned())), 10, "another /48 is counted separately");
    assert_eq!(tries(&mut (0..1000).map(|at| format!("192.0.2.{}", at % 256))), 40, "a /24");
    let refused = limit.take_from((), "192.0.2.1".parse().unwrap(), start).unwrap_err();
    assert_eq!(refused.rate.count, 40, "the error contains the rate");
}

/// Millions of keys, each of a single call, do not exceed the memory, and reset the count of no key that was used more.
#[test]
fn l4_a_flood_of_keys_resets_no_exhausted_key() {
    let limit = Limit::new("x", Rate::new(100, 24 * 60 * 60));
    let start = Instant::now();
    let (victim, flooded) = (u64::MAX, 1_000_000);
    assert!(limit.take(victim, 100, start).is_ok());
    for key in 0..flooded {
        assert!(limit.take(key, 1, start + Duration::from_millis(12) * u32::try_from(key).unwrap()).is_ok());
        if key % 100_000 == 0 {
            assert!(limit.len() <= 100_000);
        }
    }
    assert!(limit.take(victim, 20, start + Duration::from_secs(3 * 60 * 60)).is_err(), "at most 12.5 calls have drained");
    assert!(limit.take(flooded - 1, 100, start).is_err(), "the latest key is counted, too");
}

/// Returns a client at this address.
fn client(address: &str) -> ClientInfo {
    ClientInfo { address: address.parse().unwrap(), device: None }
}

/// NIST SP 800-63B section 5.2.2: at most 100 consecutive failures on one account, from wherever they come.
#[test]
fn a8_an_account_has_a_limit_of_its_own_and_known_networks_are_not_held_to_it() {
    let throttle = Throttle::new(&config::RateLimits::default());
    let ada = Email::parse("ada@example.com").unwrap();
    let tried = (0..100_000_u32).filter(|at| {
        let address = format!("{}.{}.{}.9", 1 + at / 65_536, at / 256 % 256, at % 256);
        throttle.count_attempt(&ada, &client(&address), AddressHistory::Unknown).is_ok()
    });
    assert_eq!(tried.count(), 100);
    let refused = throttle.count_attempt(&ada, &client("198.51.100.1"), AddressHistory::Unknown).unwrap_err();
    assert_eq!(refused.limit, names::ACCOUNT_FAILURES);
    assert!(
        refused.retry_after <= Duration::from_secs(15 * 60),
        "next attempt from an unknown network: {:?}",
        refused.retry_after
    );
    for _ in 0..100 {
        throttle.count_attempt(&ada, &client("198.51.100.1"), AddressHistory::KnownSite).unwrap().succeeded();
    }
    assert!(
        throttle.count_attempt(&ada, &client("203.0.113.1"), AddressHistory::Unknown).is_err(),
        "a success from a known network does not reset unknown networks"
    );
    let bob = Email::parse("bob@example.com").unwrap();
    assert!(throttle.count_attempt(&bob, &client("1.0.0.9"), AddressHistory::Unknown).is_ok(), "accounts are counted separately");
}

#[test]
fn a8_refused_attempt_returns_what_other_limits_counted() {
    let config = config::RateLimits { account_failures: Rate::new(1, 3600), ..config::RateLimits::default() };
    let throttle = Throttle::new(&config);
    let ada = Email::parse("ada@example.com").unwrap();
    let from = client("198.51.100.1");
    let first = throttle.count_attempt(&ada, &from, AddressHistory::Unknown).unwrap();
    for _ in 0..1000 {
        let refused = throttle.count_attempt(&ada, &from, AddressHistory::Unknown).map(drop).unwrap_err();
        assert_eq!(refused.limit, names::ACCOUNT_FAILURES);
    }
    first.cancel();
    assert!(throttle.count_attempt(&ada, &from, AddressHistory::Unknown).is_ok(), "a cancelled attempt counts in no limit");
}

#[tokio::test]
async fn network_has_four_times_the_rate_of_a_user() {
    let rate = Rate::new(10, 3600);
    let throttle =
        Throttle::new(&config::RateLimits { calls: rate, upload: rate, urls: rate, s3: rate, ..config::RateLimits::default() });
    let site = |address: &str| NetworkPrefix::site(address.parse().unwrap());
    type Count = fn(&Throttle, UserId) -> Result<(), Throttled>;
    let limits: [Count; 4] = [
        |throttle, user| throttle.count_call(user),
        |throttle, user| throttle.count_uploads(user, 1),
        |throttle, user| throttle.count_urls(user, 1),
        |throttle, user| throttle.count_s3_calls(user, 1),
    ];
    for count in limits {
        request_origin::scope(site("198.51.100.1"), async {
            assert_eq!((0..1000).filter(|_| count(&throttle, UserId::new()).is_ok()).count(), 40);
            assert_eq!(count(&throttle, UserId::new()).unwrap_err().rate.count, 40, "the error contains the rate");
        })
        .await;
        let user = UserId::new();
        request_origin::scope(site("198.51.101.1"), async {
            assert_eq!((0..100).filter(|_| count(&throttle, user).is_ok()).count(), 10, "one user");
            assert_eq!(
                (0..100).filter(|_| count(&throttle, UserId::new()).is_ok()).count(),
                30,
                "a rejected call takes its counts back"
            );
        })
        .await;
        assert!((0..100).all(|_| count(&throttle, UserId::new()).is_ok()), "outside of requests there is no network");
    }
}
