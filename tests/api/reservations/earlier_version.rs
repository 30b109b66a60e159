//! Covers records of an earlier version, which had holds (`users.holds`) instead of the images' reservations, alone and mixed with
//! records of this version; and changes that servers of that version make to images of this one while both run.

use super::{DateTime, Document, PASSWORD, TestApp, after, doc, json, sha256, unique_png, usage, user_of};

/// Changes the records of the user and the image into those of the earlier version: a hold instead of a reservation.
async fn make_earlier_version(app: &TestApp, user: &str, id: &str) {
    let (users, images) = (app.db.collection::<Document>("users"), app.db.collection::<Document>("images"));
    let image = app.db_image(id).await.unwrap();
    let bytes = image.get_document("reservation").unwrap().get_i64("bytes").unwrap();
    images.update_one(doc! { "_id": id }, doc! { "$unset": { "reservation": "" } }).await.unwrap();
    let hold = doc! { "image": id, "bytes": bytes, "at": DateTime::now() };
    let counted = doc! { "$push": { "holds": hold }, "$inc": { "pending": -1_i64 }, "$set": { "opening": [] } };
    users.update_one(doc! { "_id": user }, counted).await.unwrap();
}

/// Removes the fields from a user that the earlier version does not write.
async fn remove_new_fields(app: &TestApp, user: &str) {
    let unset = doc! { "$unset": { "pending": "", "opening": "" } };
    app.db.collection::<Document>("users").update_one(doc! { "_id": user }, unset).await.unwrap();
}

/// End of an upload that the earlier version opened.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Confirmed,
    Rejected,
    Deleted,
    Expired,
    ConfirmedAndDeleted,
}

/// An upload that the earlier version opened can be completed by this version, whether its hold was converted before or not.
#[tokio::test]
async fn uploads_of_an_earlier_version_can_be_completed() {
    let app = TestApp::start().await;
    for is_converted in [false, true] {
        for outcome in [Outcome::Confirmed, Outcome::Rejected, Outcome::Deleted, Outcome::Expired, Outcome::ConfirmedAndDeleted] {
            let ada = app.user().await;
            let bytes = if matches!(outcome, Outcome::Rejected) { format!("<{outcome:?}>").into_bytes() } else { unique_png() };
            let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
            make_earlier_version(&app, &ada.id, ticket.id()).await;
            let len = i64::try_from(bytes.len()).unwrap();
            assert_eq!(usage(&ada).await, (len, 0, 1), "{outcome:?}");
            if is_converted {
                app.sweep(after(1)).await;
                let (user, image) = (user_of(&ada).await, app.db_image(ticket.id()).await.unwrap());
                assert!(user.get_array("holds").unwrap().is_empty() && user.get_i64("pending").unwrap() == 1, "{user}");
                assert_eq!(image.get_document("reservation").unwrap().get_i64("bytes").unwrap(), len);
                assert_eq!(usage(&ada).await, (len, 0, 1), "{outcome:?}");
            }
            if !matches!(outcome, Outcome::Expired | Outcome::Deleted) {
                assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
                let confirmed = ada.confirm(ticket.id()).await.status;
                assert_eq!(confirmed, if matches!(outcome, Outcome::Rejected) { 422 } else { 200 });
            }
            if matches!(outcome, Outcome::Deleted | Outcome::ConfirmedAndDeleted) {
                assert_eq!(ada.delete(&format!("/api/images/{}", ticket.id())).await.status, 204);
            }
            let images = i64::from(matches!(outcome, Outcome::Confirmed));
            let pending = i64::from(matches!(outcome, Outcome::Expired));
            let now = usage(&ada).await;
            assert_eq!((now.1, now.2), (images, pending), "{outcome:?}, {is_converted}");
            app.audit().await;
            app.sweep_to_the_end().await;
            assert_eq!(usage(&ada).await, (images * len, images, 0), "{outcome:?}, {is_converted}");
            app.audit().await;
        }
    }
}

/// A server of the earlier version died between an image's transition and the update of its hold.
#[tokio::test]
async fn holds_left_by_an_earlier_version_are_converted() {
    let app = TestApp::start().await;
    for state in ["ready", "deleting", "rejected"] {
        let ada = app.user().await;
        remove_new_fields(&app, &ada.id).await;
        let bytes = unique_png();
        let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
        make_earlier_version(&app, &ada.id, ticket.id()).await;
        assert_eq!(app.put(&ticket.json["upload"], bytes.clone()).await, 200);
        if state == "ready" {
            // A reservation of more bytes than were sent, as of a form without a declared size.
            let images = app.db.collection::<Document>("images");
            let wider = doc! { "$set": { "reserved": i64::try_from(bytes.len()).unwrap() + 700 } };
            images.update_one(doc! { "_id": ticket.id() }, wider).await.unwrap();
            let users = app.db.collection::<Document>("users");
            let wider = doc! { "$inc": { "usedBytes": 700_i64, "holds.0.bytes": 700_i64 } };
            users.update_one(doc! { "_id": &ada.id }, wider).await.unwrap();
            earlier_version_ready(&app, ticket.id()).await;
        } else {
            earlier_version_tombstone(&app, ticket.id(), state).await;
        }
        app.sweep(after(1)).await;
        let expected = if state == "ready" { (i64::try_from(bytes.len()).unwrap(), 1, 0) } else { (0, 0, 0) };
        assert_eq!(usage(&ada).await, expected, "{state}");
    }
    app.sweep_to_the_end().await;
    app.audit().await;
}

/// Makes the transition `pending → ready` as the earlier version writes it.
async fn earlier_version_ready(app: &TestApp, id: &str) {
    let key = app.db_image(id).await.unwrap().get_str("key").unwrap().to_owned();
    let head = app.s3.head_object().bucket(&app.config.s3.bucket).key(&key).send().await.unwrap();
    let set =
        doc! { "state": "ready", "uploadedAt": DateTime::now(), "etag": head.e_tag().unwrap(), "width": 1_i64, "height": 1_i64 };
    let images = app.db.collection::<Document>("images");
    images.update_one(doc! { "_id": id }, doc! { "$set": set, "$unset": { "due": "" } }).await.unwrap();
}

/// Changes an image to a tombstone as the earlier version wrote it.
async fn earlier_version_tombstone(app: &TestApp, id: &str, state: &str) {
    let set = doc! { "$set": { "state": state, "due": DateTime::now() }, "$unset": { "live": "" } };
    app.db.collection::<Document>("images").update_one(doc! { "_id": id }, set).await.unwrap();
}

/// Makes the transition `ready → deleting` as the earlier version writes it, counters included.
async fn earlier_version_delete(app: &TestApp, user: &str, id: &str) {
    let size = app.db_image(id).await.unwrap().get_i64("size").unwrap();
    earlier_version_tombstone(app, id, "deleting").await;
    let counted = doc! { "$inc": { "usedBytes": -size, "images": -1_i64 } };
    app.db.collection::<Document>("users").update_one(doc! { "_id": user }, counted).await.unwrap();
}

/// Makes the transition `deleting → gone` as the earlier version writes it.
async fn earlier_version_gone(app: &TestApp, id: &str) {
    let key = app.db_image(id).await.unwrap().get_str("key").unwrap().to_owned();
    app.s3.delete_object().bucket(&app.config.s3.bucket).key(key).send().await.unwrap();
    let set = doc! { "$set": { "state": "gone", "goneFrom": "deleting", "goneAt": DateTime::now() }, "$unset": { "due": "" } };
    app.db.collection::<Document>("images").update_one(doc! { "_id": id }, set).await.unwrap();
}

/// Records, as the earlier version does, that the object was deleted, and is to be deleted again when the URL has expired.
async fn earlier_version_put_off(app: &TestApp, id: &str) {
    // The URL is valid for an hour, and the grace period is a quarter of an hour.
    let url_expiry = DateTime::from_millis(DateTime::now().timestamp_millis() + 75 * 60_000);
    app.db.collection::<Document>("images").update_one(doc! { "_id": id }, doc! { "$set": { "due": url_expiry } }).await.unwrap();
}

/// A server of the earlier version changes an upload of this version: it finds no hold, and changes no counter except
/// when it deletes a ready image. This version's sweeper corrects each.
#[tokio::test]
async fn changes_by_an_earlier_version_to_new_uploads_are_corrected() {
    let app = TestApp::start().await;
    for steps in [
        "ready",
        "deleting",
        "deleting put-off",
        "rejected put-off",
        "deleting gone",
        "ready deleted",
        "ready deleted gone",
        "ready settled deleted",
    ] {
        let ada = app.user().await;
        let bytes = unique_png();
        let len = i64::try_from(bytes.len()).unwrap();
        let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
        assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
        for step in steps.split(' ') {
            match step {
                "ready" => earlier_version_ready(&app, ticket.id()).await,
                "settled" => drop(app.sweep(after(300)).await),
                "deleted" => earlier_version_delete(&app, &ada.id, ticket.id()).await,
                "gone" => earlier_version_gone(&app, ticket.id()).await,
                "put-off" => earlier_version_put_off(&app, ticket.id()).await,
                state => earlier_version_tombstone(&app, ticket.id(), state).await,
            }
            // Counters must never be negative, not even for a moment.
            usage(&ada).await;
        }
        app.sweep(after(300)).await;
        let (_, images, pending) = usage(&ada).await;
        assert_eq!((images, pending), (i64::from(steps == "ready"), 0), "{steps}");
        app.sweep_to_the_end().await;
        assert_eq!(usage(&ada).await.0, if steps == "ready" { len } else { 0 }, "{steps}");
        app.audit().await;
    }
}

/// A server dies while it converts a hold, and the earlier version changes the image's state. The earlier version finds no hold,
/// so it changes no counter except when it deletes a ready image, and the step that replaced the hold is not lost.
#[tokio::test]
async fn interrupted_conversion_is_finished_whatever_the_images_state() {
    let app = TestApp::start().await;
    for steps in ["pending", "ready", "deleting", "rejected", "ready deleted"] {
        let ada = app.user().await;
        let bytes = unique_png();
        let len = i64::try_from(bytes.len()).unwrap();
        let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
        assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
        make_earlier_version(&app, &ada.id, ticket.id()).await;
        let old = DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000);
        let entry = doc! { "image": ticket.id(), "step": uuid::Uuid::now_v7().to_string(), "at": old, "bytes": 0_i64, "images": 0_i64, "pending": 0_i64, "hold": len };
        let begun = doc! { "$push": { "settling": entry }, "$set": { "holds": [] }, "$inc": { "pending": 1_i64 } };
        app.db.collection::<Document>("users").update_one(doc! { "_id": &ada.id }, begun).await.unwrap();
        // The earlier version counts no months.
        let is_drift = |repair: &valet::store::Repair| repair.was != repair.is || !repair.has_changed_timeline;
        app.app.valet.recount.run(None, |repair| assert!(!is_drift(&repair), "{steps}: {repair}")).await.unwrap();
        for step in steps.split(' ').filter(|step| *step != "pending") {
            match step {
                "ready" => earlier_version_ready(&app, ticket.id()).await,
                "deleted" => earlier_version_delete(&app, &ada.id, ticket.id()).await,
                tombstone => earlier_version_tombstone(&app, ticket.id(), tombstone).await,
            }
        }
        app.sweep(after(1)).await;
        app.sweep(after(300)).await;
        let (_, images, pending) = usage(&ada).await;
        assert_eq!((images, pending), (i64::from(steps == "ready"), i64::from(steps == "pending")), "{steps}");
        app.audit().await;
    }
    app.sweep_to_the_end().await;
    app.audit().await;
}

/// Holds and reservations share the limit of open uploads, and a recount includes both.
#[tokio::test]
async fn holds_and_reservations_are_limited_and_recounted_together() {
    let app = TestApp::start_with(|config| config.uploads.max_pending = 3).await;
    let ada = app.user().await;
    let tickets =
        [ada.open_upload("a.png", "image/png", &unique_png()).await, ada.open_upload("b.png", "image/png", &unique_png()).await];
    make_earlier_version(&app, &ada.id, tickets[0].id()).await;
    assert_eq!(ada.open_upload("c.png", "image/png", &unique_png()).await.status, 201);
    assert_eq!(ada.open_upload("d.png", "image/png", &unique_png()).await.problem(), (409, "too_many_pending"));
    let right = usage(&ada).await;
    app.app.valet.recount.run(None, |repair| panic!("nothing drifted: {repair}")).await.unwrap();
    let wrong = doc! { "$set": { "usedBytes": 1_i64, "images": 9_i64, "pending": 7_i64, "holds": [] } };
    app.db.collection::<Document>("users").update_one(doc! { "_id": &ada.id }, wrong).await.unwrap();
    let mut repairs = 0;
    app.app.valet.recount.run(None, |_| repairs += 1).await.unwrap();
    assert_eq!((repairs, usage(&ada).await), (1, right));
    app.audit().await;
}

/// Two thousand holds of one user are converted in slices, while another user's account is deleted.
#[tokio::test]
async fn many_holds_of_one_user_do_not_delay_others() {
    let app = TestApp::start_with(|config| config.uploads.max_pending = 10_000).await;
    let (eve, bob) = (app.user().await, app.user().await);
    let ticket = eve.open_upload("a.png", "image/png", &unique_png()).await;
    let image = app.db_image(ticket.id()).await.unwrap();
    let (mut images, mut holds) = (Vec::new(), Vec::new());
    for _ in 0..2000 {
        let mut twin = image.clone();
        let id = uuid::Uuid::now_v7().to_string();
        holds.push(doc! { "image": &id, "bytes": 7_i64, "at": DateTime::now() });
        twin.extend(doc! { "_id": &id, "sha256": sha256(id.as_bytes()), "size": 7_i64 });
        twin.remove("reservation");
        images.push(twin);
    }
    app.db.collection::<Document>("images").insert_many(images).await.unwrap();
    let counted = doc! { "$set": { "holds": holds }, "$inc": { "usedBytes": 14_000_i64 } };
    app.db.collection::<Document>("users").update_one(doc! { "_id": &eve.id }, counted).await.unwrap();
    let before = usage(&eve).await;
    assert_eq!(before.2, 2001);
    assert_eq!(bob.post("/api/auth/me/delete", json!({ "password": PASSWORD })).await.status, 204);
    assert_eq!(app.sweep(after(1)).await.accounts, 1);
    for _ in 0..25 {
        app.sweep(after(1)).await;
        assert_eq!(usage(&eve).await, before, "their owner notices no change");
    }
    assert!(user_of(&eve).await.get_array("holds").unwrap().is_empty());
    app.audit().await;
}
