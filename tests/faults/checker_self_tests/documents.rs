//! Plants violations in MongoDB only.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, phc::PasswordHash},
};
use mongodb::bson::{Binary, DateTime, doc, spec::BinarySubtype};

use super::CleanCluster;
use crate::workload::users::{MARKER, password_of};

/// Plants violations in the documents of MongoDB.
pub async fn plant(clean: &CleanCluster) {
    let (image, deleted) = (clean.acknowledged_image(), clean.deleted_image());
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000);

    clean.update("images", image.id(), doc! { "$set": { "etag": "\"another\"" } }).await;
    clean.assert_reports("a record has another entity tag than its object", &[2]).await;

    clean.update("images", deleted.id(), doc! { "$set": { "state": "limbo" } }).await;
    clean.assert_reports("a record has an unknown state", &[8]).await;

    let stuck = doc! { "$set": { "state": "rejected", "due": past }, "$unset": { "goneAt": "" } };
    clean.update("images", deleted.id(), stuck).await;
    clean.assert_reports("a rejected upload is not queued for the sweeper", &[8]).await;

    // In the year 2106.
    let far_future = DateTime::from_millis(i64::from(u32::MAX) * 1000);
    let reopened = doc! { "$set": { "state": "deleting", "due": far_future }, "$unset": { "goneAt": "" } };
    clean.update("images", deleted.id(), reopened).await;
    clean.assert_reports_with_history("a purged image is being deleted again", &[8]).await;

    clean.update("users", image.user(), doc! { "$inc": { "usedBytes": 1_i64 } }).await;
    clean.assert_reports("a counted byte is not stored", &[9]).await;

    clean.update("users", image.user(), doc! { "$inc": { "pending": 1_i64 } }).await;
    clean.assert_reports("a counted open upload does not exist", &[9]).await;

    let reservation = doc! { "bytes": 0_i64, "place": "none", "due": past };
    clean.update("images", deleted.id(), doc! { "$set": { "reservation": reservation } }).await;
    clean.assert_reports("bytes are reserved for an image that is gone", &[9]).await;

    clean.update("users", image.user(), doc! { "$set": { "note": format!("{MARKER} word") } }).await;
    clean.assert_reports("a password is in a record", &[11]).await;

    let token = "a-refresh-token-whose-sixty-six-characters-are-nobody-elses-secret";
    clean.journal.record_secret("refresh token", token);
    clean.update("users", image.user(), doc! { "$set": { "note": token } }).await;
    clean.assert_reports("a refresh token is in a record", &[11]).await;

    let ended = clean.timelines.ended_sessions.iter().next().expect("the load ended a session");
    let mut session = clean.base.sessions.first().expect("the load left a session").clone();
    let other = Binary { subtype: BinarySubtype::Generic, bytes: vec![7; 32] };
    session.extend(doc! { "_id": ended, "tokenHash": other });
    clean.collection("sessions").insert_one(session).await.unwrap();
    clean.assert_reports("an ended session is stored", &[11]).await;

    // Any session can be copied: each has a `tokenHash`, even those of users of the app, which have no refresh token.
    let mut twin = clean.base.sessions.first().expect("the load left a session").clone();
    twin.insert("_id", uuid::Uuid::now_v7().to_string());
    clean.collection("sessions").insert_one(twin).await.unwrap();
    clean.assert_reports("two sessions have one refresh token", &[11]).await;
    plant_password_hashes(clean).await;
}

/// I12: a hash with weak parameters, and two hashes with the same salt.
async fn plant_password_hashes(clean: &CleanCluster) {
    let users = clean.users_with_password();
    let weak = hash(&password_of(email(clean, &users[0])), Params::new(1024, 1, 1, None).unwrap(), b"sixteen bytes of");
    clean.update("users", &users[0], doc! { "$set": { "passwordHash": weak } }).await;
    clean.assert_reports("a password's hash is weak", &[12]).await;

    for user in &users[..2] {
        let salted = hash(&password_of(email(clean, user)), Params::new(19_456, 2, 1, None).unwrap(), b"sixteen bytes of");
        clean.update("users", user, doc! { "$set": { "passwordHash": salted } }).await;
    }
    clean.assert_reports("two passwords have one salt", &[12]).await;
}

/// Returns the email of a user.
fn email<'a>(clean: &'a CleanCluster, user: &str) -> &'a str {
    let found = clean.base.users.iter().find(|known| known.get_str("_id").ok() == Some(user));
    found.unwrap().get_str("email").unwrap()
}

/// Returns an Argon2id hash with these parameters and this salt.
fn hash(password: &str, params: Params, salt: &[u8]) -> String {
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash: PasswordHash = hasher.hash_password_with_salt(password.as_bytes(), salt).unwrap();
    hash.to_string()
}
