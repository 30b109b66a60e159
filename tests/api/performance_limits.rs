//! Covers limits of time and memory under logins and slow clients. The tests are ignored by default, because measurements on a
//! busy machine prove nothing. On an idle machine,
//! `cargo test --test api -- --ignored --nocapture --test-threads 1 performance_limits` runs them and prints the figures.

mod login_flood;
mod slow_clients;

use std::time::{Duration, Instant};

use serde_json::json;

use super::app::{Answer, PASSWORD, TestApp};

/// Number of logins of each kind.
const ROUNDS: usize = 300;

/// Returns status, body and headers of an answer without the request id and the date, which differ in every answer.
fn comparable(answer: &Answer) -> (u16, String, Vec<(String, String)>) {
    let request_id = answer.json["requestId"].as_str().unwrap();
    assert!(!request_id.is_empty() && answer.text.matches(request_id).count() == 1, "{answer:?}");
    let headers = answer.headers.iter().filter(|(name, _)| !matches!(name.as_str(), "date" | "x-request-id"));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    (answer.status, answer.text.replace(request_id, ""), headers)
}

/// Sorts the times and returns the median.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Neither the answer nor its time reveals whether an address has an account.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "compares times: needs an idle machine"]
async fn a5_unknown_address_and_wrong_password_take_the_same_time() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let log_in = async |email: &str| {
        let body = json!({ "email": email, "password": "another three boats" });
        let began = Instant::now();
        let answer = app.anonymous().post("/api/auth/login", body).await;
        (began.elapsed(), answer)
    };
    let expected = comparable(&log_in(&ada.email).await.1);
    assert_eq!(expected.0, 401);
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // The address is as long as Ada's, and new in each round.
        let unknown_email = format!("{}@example.com", uuid::Uuid::new_v4().simple());
        // Each address is first in half of the rounds.
        let order = if round % 2 == 0 { [&ada.email, &unknown_email] } else { [&unknown_email, &ada.email] };
        for email in order {
            let (took, answer) = log_in(email).await;
            assert_eq!(comparable(&answer), expected);
            if *email == ada.email { known.push(took) } else { unknown.push(took) }
        }
    }
    let right = app.anonymous().post("/api/auth/login", json!({ "email": ada.email, "password": PASSWORD })).await;
    assert_eq!(right.status, 200, "{right:?}");
    let (known, unknown) = (median(&mut known), median(&mut unknown));
    let apart = known.abs_diff(unknown).as_secs_f64() / known.max(unknown).as_secs_f64();
    println!("{ROUNDS} logins each: wrong password {known:?}, unknown address {unknown:?}, {:.1} % apart", apart * 100.0);
    assert!(apart < 0.05, "the time reveals whether an address has an account");
}
