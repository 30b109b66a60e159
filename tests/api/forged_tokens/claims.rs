//! Covers access tokens with missing, wrong or expired claims.

use super::{
    JWT_SECRET, TestApp, Value, assert_rejected, claims_of, forge, header, hmac, json, read_account, signed, with, without,
};

/// Returns claims with each one missing, or of another type or value.
fn missing_or_wrong(claims: &Value) -> Vec<Value> {
    let mut forged = Vec::new();
    for claim in ["sub", "sid", "iss", "aud", "iat", "exp", "jti"] {
        forged.push(without(claims, claim));
        for value in [
            Value::Null,
            json!({}),
            json!([]),
            json!(true),
            json!(""),
            json!("other"),
            json!(1.5),
            json!([claims[claim]]),
            json!({ "$gt": "" }),
        ] {
            if claim != "jti" || !value.is_string() {
                forged.push(with(claims, claim, value));
            }
        }
    }
    forged
}

/// Returns claims whose times are fractional, of another type, or far from `now`.
fn wrong_times(claims: &Value, now: i64) -> Vec<Value> {
    let mut forged = Vec::new();
    for claim in ["iat", "exp", "nbf"] {
        for value in [
            json!(now.to_string()),
            json!(now as f64 + 0.5),
            json!(-1),
            json!(i64::MIN),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(1e300),
            json!(-0.0),
            Value::Null,
        ] {
            // A time long past is valid for `nbf`.
            if claim != "nbf" || value.as_i64().is_none_or(|at| at >= 0) {
                forged.push(with(claims, claim, value));
            }
        }
    }
    let in_an_hour = json!(now + 3600);
    forged.push(with(claims, "nbf", in_an_hour.clone()));
    forged.push(with(&with(claims, "iat", in_an_hour), "exp", json!(now + 4000)));
    // Longer than the longest lifetime, seven days.
    forged.push(with(claims, "iat", json!(0)));
    forged.push(with(claims, "exp", json!(now + 8 * 24 * 3600)));
    forged
}

/// Returns claims with names that resemble the right ones.
fn similar_names(claims: &Value, user: &str) -> Vec<Value> {
    let names = [
        ("aud", json!(["valet", "other"])),
        ("aud", json!(["valet"])),
        ("aud", json!("VALET")),
        ("iss", json!("valet ")),
        ("iss", json!("https://valet")),
        ("sub", json!(user.to_uppercase())),
        ("sub", json!(format!("{{{user}}}"))),
        ("sub", json!("x".repeat(10_000))),
        ("sid", json!("00000000-0000-0000-0000-00000000000g")),
    ];
    names.map(|(claim, value)| with(claims, claim, value)).into()
}

/// Returns claims that repeat a member, have an unreadable number, or are not a JSON object. `other` is another user.
fn malformed(claims: &Value, other: &str, now: i64) -> Vec<String> {
    let text = claims.to_string();
    let twice = |claim: &str, value: &str| format!("{{\"{claim}\":{value},{}", &text[1..]);
    vec![
        twice("sub", &json!(other).to_string()),
        twice("exp", &(now + 60).to_string()),
        twice("aud", "\"valet\""),
        text.replace("\"exp\":", "\"exp\":1e400,\"x\":"),
        text.replace("\"exp\":", "\"exp\":00"),
        format!("{text} {{}}"),
        format!("[{text}]"),
        "null".to_owned(),
        String::new(),
    ]
}

#[tokio::test]
async fn t3_missing_wrong_or_expired_claims_are_rejected() {
    let app = TestApp::start().await;
    let (ada, eve) = (app.user().await, app.user().await);
    let claims = claims_of(&ada);
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let forged = [wrong_times(&claims, now), missing_or_wrong(&claims), similar_names(&claims, &ada.id)];
    for claims in forged.concat() {
        assert_rejected(&read_account(&app, &[&format!("Bearer {}", forge(&header(), &claims))]).await, &claims.to_string());
    }
    for claims in malformed(&claims, &eve.id, now) {
        let token = signed(&header().to_string(), &claims, hmac::HMAC_SHA256, JWT_SECRET.as_bytes());
        assert_rejected(&read_account(&app, &[&format!("Bearer {token}")]).await, &claims);
    }
    for (exp, iat) in [(now - 31, now - 600), (now - 1, now - 2), (0, 0)] {
        let expired = with(&with(&claims, "exp", json!(exp)), "iat", json!(iat));
        let answer = read_account(&app, &[&format!("Bearer {}", forge(&header(), &expired))]).await;
        assert_eq!(answer.problem(), (401, "token_expired"), "{expired}");
    }
    let unknown = with(&claims, "sid", json!(uuid::Uuid::now_v7().to_string()));
    let answer = read_account(&app, &[&format!("Bearer {}", forge(&header(), &unknown))]).await;
    assert_eq!(answer.problem(), (401, "session_ended"), "a session that never existed");
}
