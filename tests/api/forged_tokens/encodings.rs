//! Covers texts that are not the encoding of an access token, and tokens of another kind or in another position of the request.

use super::{TestApp, assert_rejected, json, read_account};
use crate::app::PASSWORD;

/// Returns texts that a lenient parser could take for this token.
fn other_encodings(token: &str) -> Vec<String> {
    let parts: Vec<_> = token.split('.').collect();
    let signature = parts[2];
    // 32 bytes are 43 base64 letters, whose last two bits are unused: a lenient decoder accepts four different last letters.
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = alphabet.iter().position(|letter| *letter == signature.as_bytes()[42]).unwrap();
    let equal_when_decoded = format!("{}{}", &signature[..42], char::from(alphabet[last + 1]));
    let mut flipped = signature.to_owned().into_bytes();
    flipped[0] = if flipped[0] == b'A' { b'B' } else { b'A' };
    let joined = |parts: [&str; 3]| parts.join(".");
    vec![
        joined([parts[0], parts[1], &equal_when_decoded]),
        joined([parts[0], parts[1], &format!("{signature}=")]),
        joined([&format!("{}=", parts[0]), parts[1], signature]),
        joined([parts[0], &format!("{}==", parts[1]), signature]),
        joined([parts[0], parts[1], &String::from_utf8(flipped).unwrap()]),
        joined([parts[0], parts[1], &signature[..42]]),
        joined([parts[0], parts[1], &format!("{signature}A")]),
        joined([parts[0], parts[1], ""]),
        joined([parts[0], "", signature]),
        joined(["", parts[1], signature]),
        joined([parts[1], parts[0], signature]),
        joined([parts[0], parts[1], &signature.replace(['-', '_'], "+")]) + "/",
        format!("{}.{}", parts[0], parts[1]),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{}", parts[2]),
        format!("{token}.{}.{}", parts[1], parts[2]),
        token.replace('.', ".."),
        token.replace('.', ","),
        format!("{token},{token}"),
        format!("{token} {token}"),
        format!("\"{token}\""),
        token.replacen('e', "e ", 1),
        token.to_uppercase(),
        "x".repeat(20_000),
        format!("{}.{}.{}", "x".repeat(7000), "y".repeat(7000), "z".repeat(6000)),
        ".".repeat(20_000),
        "é".repeat(50),
        "null".to_owned(),
        "{}".to_owned(),
    ]
}

#[tokio::test]
async fn t2_other_encodings_positions_and_kinds_of_token_are_rejected() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let token = ada.token.clone().unwrap();
    let mut forged = other_encodings(&token);
    let signed_in = app.anonymous().post("/api/auth/login", json!({ "email": ada.email, "password": PASSWORD })).await;
    let refresh = signed_in.json["refreshToken"].as_str().unwrap().to_owned();
    forged.push(refresh.clone());
    for token in &forged {
        assert_rejected(&read_account(&app, &[&format!("Bearer {token}")]).await, token);
    }
    for other in [format!("Basic {token}"), format!("DPoP {token}"), token.clone(), format!("Bearer{token}")] {
        assert_rejected(&read_account(&app, &[&other]).await, &other);
    }
    // The reverse: an access token, and the forged ones, in place of a refresh token.
    for path in ["/api/auth/refresh", "/api/auth/logout"] {
        for wrong in forged.iter().filter(|text| **text != refresh && text.len() < 3000).chain([&token]) {
            let answer = app.anonymous().post(path, json!({ "refreshToken": wrong })).await;
            assert_rejected(&answer, wrong);
        }
    }
    let valid = format!("Bearer {token}");
    for two in [[&valid[..], "Bearer x"], ["Bearer x", &valid], [&valid, &valid], [&valid, ""]] {
        assert_rejected(&read_account(&app, &two).await, "two headers");
    }
    for query in ["access_token", "token", "authorization", "bearer"] {
        let answer = app.anonymous().get(&format!("/api/auth/me?{query}={token}")).await;
        assert_eq!(answer.problem(), (401, "token_missing"), "{query}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    assert_eq!(read_account(&app, &[&valid]).await.status, 200, "the session is still active");
}
