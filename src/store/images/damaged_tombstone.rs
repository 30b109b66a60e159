//! Recovers damaged tombstones from their readable fields, so that their objects are removed.

use mongodb::bson::{Bson, DateTime, Document, doc};

use super::document::ImageDoc;
use crate::model::{Image, ImageId, ImageState, KeyOwner, ObjectKey, UserId};

/// Returns the image of a tombstone, with a default for each unreadable field. The default keys of its id and owner are among
/// its leftover keys, because the record may name others. `None` for other states, and if the id, the owner or the state cannot
/// be read.
pub(super) fn recover(record: &Document) -> Option<Image> {
    let (id, user) = (ImageId::parse(record.get_str("_id").ok()?)?, UserId::parse(record.get_str("user").ok()?)?);
    let state = ImageState::parse(record.get_str("state").ok()?).filter(|state| state.is_tombstone())?;
    let now = DateTime::now();
    let mut tombstone = doc! {
        "_id": id.to_string(),
        "user": user.to_string(),
        "state": state.as_str(),
        "key": ObjectKey::final_for(user, id).as_str(),
        "fileName": "damaged",
        "contentType": "image/jpeg",
        "size": 0_i64,
        // The kind is unknown. With the kind of a multipart upload, S3's upload is aborted if there is one.
        "kind": "parts",
        "createdAt": now,
        "expiresAt": now,
        "urlsDieAt": now,
    };
    for (name, value) in record {
        let mut trial = tombstone.clone();
        trial.insert(name, value.clone());
        if decode(trial).is_some() {
            tombstone.insert(name, value.clone());
        }
    }
    let mut image = decode(tombstone)?;
    let recorded = record.get_array("strays").map_or(&[][..], Vec::as_slice).iter().filter_map(Bson::as_str);
    let owner = KeyOwner { user, image: id };
    let recorded = recorded.filter_map(|key| owner.own_key(key));
    let default_keys = [ObjectKey::final_for(user, id), ObjectKey::incoming(user, id)];
    let previews = default_keys.clone().map(|key| key.preview());
    let pictures = [default_keys[0].pictures(), image.key.pictures()].concat();
    let pictures = pictures.into_iter().filter(|key| key.owner() == Some(owner));
    image.leftover_keys = recorded
        .chain(default_keys)
        .chain(previews)
        .chain(pictures)
        .chain([image.key.preview()])
        .filter(|key| *key != image.key)
        .collect();
    image.leftover_keys.sort();
    image.leftover_keys.dedup();
    Some(image)
}

/// Decodes a record; `None` if it cannot be read.
fn decode(record: Document) -> Option<Image> {
    mongodb::bson::deserialize_from_document::<ImageDoc>(record).ok()?.into_image().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tombstone_with_any_damaged_field_is_recovered() {
        let (user, id) = (UserId::new(), ImageId::new());
        let (key, leftover) = (ObjectKey::copy_attempt(user, id), ObjectKey::copy_attempt(user, id));
        let foreign = ObjectKey::final_for(user, ImageId::new());
        let now = DateTime::now();
        let undamaged = doc! {
            "_id": id.to_string(), "user": user.to_string(), "state": "deleting", "key": key.as_str(), "fileName": "a.png",
            "contentType": "image/png", "size": 7_i64, "kind": "single", "sha256": "x", "uploadId": "u",
            "strays": [leftover.as_str(), foreign.as_str(), "users.csv"],
            "preview": { "contentType": "image/webp", "size": 1_i64, "sha256": "y" }, "createdAt": now, "expiresAt": now,
            "urlsDieAt": now, "due": now, "reserved": 7_i64, "rejection": "none", "etag": "e", "caption": "c",
        };
        for field in undamaged.keys().filter(|field| !matches!(field.as_str(), "_id" | "user" | "state")) {
            for value in [Bson::Int32(-1), Bson::Null, Bson::String("\u{0}".to_owned()), Bson::Array(vec![Bson::Null])] {
                let mut damaged = undamaged.clone();
                damaged.insert(field.clone(), value);
                let image = recover(&damaged).unwrap();
                assert_eq!((image.id, image.user, image.state()), (id, user, ImageState::Deleting), "{field}");
                assert!(field == "key" || image.key == key, "{field}");
                assert!(image.keys().contains(&ObjectKey::final_for(user, id)), "{field}");
                assert!(field == "strays" || image.leftover_keys.contains(&leftover), "{field}");
                assert!(image.keys().iter().all(|key| key.owner() == Some(KeyOwner { user, image: id })), "{field}");
            }
        }
        for (field, value) in [("_id", "x"), ("user", "x"), ("state", "ready"), ("state", "x")] {
            let mut other = undamaged.clone();
            other.insert(field, value);
            assert!(recover(&other).is_none(), "{field} {value}");
        }
    }
}
