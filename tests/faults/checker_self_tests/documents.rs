//! Plants in MongoDB alone.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, phc::PasswordHash},
};
use mongodb::bson::{Binary, DateTime, doc, spec::BinarySubtype};

use super::Field;
use crate::workload::users::{MARKER, password_of};

pub async fn plant(field: &Field) {
    let (image, deleted) = (field.acknowledged(), field.deleted());
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000);

    field.update("images", image.id(), doc! { "$set": { "etag": "\"another\"" } }).await;
    field.reports("a record has another entity tag than its object", &[2]).await;

    field.update("images", deleted.id(), doc! { "$set": { "state": "limbo" } }).await;
    field.reports("a record is in no state", &[8]).await;

    let stuck = doc! { "$set": { "state": "rejected", "due": past }, "$unset": { "goneAt": "" } };
    field.update("images", deleted.id(), stuck).await;
    field.reports("nobody looks after a rejected upload", &[8]).await;

    let back = doc! { "$set": { "state": "deleting", "due": DateTime::from_millis(i64::from(u32::MAX) * 1000) }, "$unset": { "goneAt": "" } };
    field.update("images", deleted.id(), back).await;
    field.is_remembered("what was gone is not gone any more", &[8]).await;

    field.update("users", image.user(), doc! { "$inc": { "usedBytes": 1_i64 } }).await;
    field.reports("a byte is counted that nobody has", &[9]).await;

    field.update("users", image.user(), doc! { "$inc": { "pending": 1_i64 } }).await;
    field.reports("an open upload is counted that is not there", &[9]).await;

    let reservation = doc! { "bytes": 0_i64, "place": "none", "due": past };
    field.update("images", deleted.id(), doc! { "$set": { "reservation": reservation } }).await;
    field.reports("bytes are reserved for an image that is gone", &[9]).await;

    field.update("users", image.user(), doc! { "$set": { "note": format!("{MARKER} word") } }).await;
    field.reports("a password is in a record", &[11]).await;

    let token = "a-refresh-token-whose-sixty-six-characters-are-nobody-elses-secret";
    field.journal.secret("refresh token", token);
    field.update("users", image.user(), doc! { "$set": { "note": token } }).await;
    field.reports("a refresh token is in a record", &[11]).await;

    let ended = field.timelines.ended_sessions.iter().next().expect("the load ended a session");
    let mut session = field.base.sessions.first().expect("the load left a session").clone();
    let other = Binary { subtype: BinarySubtype::Generic, bytes: vec![7; 32] };
    session.extend(doc! { "_id": ended, "tokenHash": other });
    field.collection("sessions").insert_one(session).await.unwrap();
    field.reports("a session that was ended is there", &[11]).await;

    let mut twin = field.base.sessions[0].clone();
    twin.insert("_id", uuid::Uuid::now_v7().to_string());
    field.collection("sessions").insert_one(twin).await.unwrap();
    field.reports("two sessions have one refresh token", &[11]).await;

    let weak = hash(&password_of(email(field, image.user())), Params::new(1024, 1, 1, None).unwrap(), b"sixteen bytes of");
    field.update("users", image.user(), doc! { "$set": { "passwordHash": weak } }).await;
    field.reports("a password's hash is weak", &[12]).await;

    let other = field.user_but(image.user());
    for user in [image.user(), &other] {
        let salted = hash(&password_of(email(field, user)), Params::new(19_456, 2, 1, None).unwrap(), b"sixteen bytes of");
        field.update("users", user, doc! { "$set": { "passwordHash": salted } }).await;
    }
    field.reports("two passwords have one salt", &[12]).await;
}

fn email<'a>(field: &'a Field, user: &str) -> &'a str {
    let found = field.base.users.iter().find(|known| known.get_str("_id").ok() == Some(user));
    found.unwrap().get_str("email").unwrap()
}

fn hash(password: &str, params: Params, salt: &[u8]) -> String {
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash: PasswordHash = hasher.hash_password_with_salt(password.as_bytes(), salt).unwrap();
    hash.to_string()
}
