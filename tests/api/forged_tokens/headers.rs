//! Covers access tokens with a tampered header.

use super::{
    JWT_SECRET, TestApp, Value, assert_rejected, base64, claims_of, forge, header, hmac, json, kid, read_account, signed, with,
    without,
};

/// Names of algorithms other than HS256, and spellings of none and of HS256.
const ALGORITHMS: [&str; 25] = [
    "none", "None", "NONE", "nOnE", "none ", "", "HS384", "HS512", "hs256", "HS256 ", "RS256", "RS384", "RS512", "PS256",
    "ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519", "dir", "A128KW", "RSA-OAEP", "../HS256", "\u{0}",
];

/// Returns a token with a header that may be malformed, signed with the server's own key.
fn signed_as_hs256(header: &str, claims: &Value) -> String {
    signed(header, &claims.to_string(), hmac::HMAC_SHA256, JWT_SECRET.as_bytes())
}

/// Returns tokens that name another algorithm, each with signatures of several kinds and without one.
fn other_algorithms(claims: &Value) -> Vec<String> {
    let mut forged = Vec::new();
    for algorithm in ALGORITHMS {
        let header = with(&header(), "alg", json!(algorithm));
        forged.push(forge(&header, claims));
        for hash in [hmac::HMAC_SHA384, hmac::HMAC_SHA512] {
            forged.push(signed(&header.to_string(), &claims.to_string(), hash, JWT_SECRET.as_bytes()));
        }
        let unsigned = forge(&header, claims).rsplit_once('.').unwrap().0.to_owned();
        forged.extend([format!("{unsigned}."), unsigned.clone(), format!("{unsigned}.{}", base64([0; 32]))]);
    }
    forged
}

/// Returns tokens that name another key, signed with the service's own key and with secrets that such a name could lead to.
fn other_keys(claims: &Value) -> Vec<String> {
    let mut forged = Vec::new();
    let long = "k".repeat(10_000);
    for name in [
        "",
        "../../../../dev/null",
        "/dev/null",
        "..\\..\\windows",
        "\u{0}",
        &format!("{}\u{0}", kid()),
        &long,
        "' OR '1'='1",
        "x' UNION SELECT 'AA';--",
        "{\"$ne\":null}",
        "$(id)",
        "http://127.0.0.1:1/key",
        &kid().to_uppercase(),
        &format!(" {}", kid()),
        "00000000",
    ] {
        let header = with(&header(), "kid", json!(name));
        forged.push(forge(&header, claims));
        for secret in [&b""[..], b"AA", name.as_bytes()] {
            forged.push(signed(&header.to_string(), &claims.to_string(), hmac::HMAC_SHA256, secret));
        }
    }
    forged.push(signed(&header().to_string(), &claims.to_string(), hmac::HMAC_SHA256, b"another secret of thirty-two bytes"));
    forged
}

/// Returns tokens whose members are missing or have another type or value.
fn wrong_members(claims: &Value) -> Vec<String> {
    let mut forged = Vec::new();
    for member in ["kid", "alg", "typ"] {
        forged.push(forge(&without(&header(), member), claims));
        for value in [Value::Null, json!(1), json!(true), json!([]), json!([kid()]), json!({}), json!({ "$ne": null })] {
            forged.push(forge(&with(&header(), member, value), claims));
        }
    }
    for typ in ["JWT", "at+JWT", "application/at+jwt", "jwt", "refresh+jwt", "", "at+jwt "] {
        forged.push(forge(&with(&header(), "typ", json!(typ)), claims));
    }
    forged
}

/// Returns tokens with a further member, such as a key, signed with the service's own key and with the key in the header.
fn further_members(claims: &Value) -> Vec<String> {
    let key = [7; 32];
    let members = [
        ("jku", json!("http://127.0.0.1:1/jwks")),
        ("x5u", json!("http://127.0.0.1:1/certificate")),
        ("x5c", json!([base64("certificate")])),
        ("x5t", json!("x")),
        ("jwk", json!({ "kty": "oct", "k": base64(key), "kid": kid(), "alg": "HS256" })),
        ("jwk", json!("x")),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!("exp")),
        ("b64", json!(false)),
        ("cty", json!("JWT")),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
        ("nonce", json!("x")),
    ];
    let forged = members.into_iter().flat_map(|(member, value)| {
        let header = with(&header(), member, value);
        [forge(&header, claims), signed(&header.to_string(), &claims.to_string(), hmac::HMAC_SHA256, &key)]
    });
    forged.collect()
}

/// Returns tokens whose header repeats a member or is not a JSON object.
fn malformed_headers(claims: &Value) -> Vec<String> {
    let kid = kid();
    let headers: [&str; 8] = [
        &format!("{{\"alg\":\"none\",\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"{kid}\"}}"),
        &format!("{{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"x\",\"kid\":\"{kid}\"}}"),
        &format!("{{\"alg\":\"HS256\",\"typ\":\"at+jwt\",\"kid\":\"{kid}\"}} trailing"),
        "[]",
        "null",
        "{",
        "\u{feff}{}",
        "",
    ];
    headers.map(|header| signed_as_hs256(header, claims)).into()
}

#[tokio::test]
async fn t1_tampered_token_headers_are_rejected() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let claims = claims_of(&ada);
    let unaltered = read_account(&app, &[&format!("Bearer {}", forge(&header(), &claims))]).await;
    assert_eq!(unaltered.status, 200, "an unaltered forged token is accepted");
    let forged = [
        other_algorithms(&claims),
        other_keys(&claims),
        wrong_members(&claims),
        further_members(&claims),
        malformed_headers(&claims),
    ];
    for token in forged.concat() {
        assert_rejected(&read_account(&app, &[&format!("Bearer {token}")]).await, &token);
    }
}
