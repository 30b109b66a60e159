//! Covers reservation steps that a server began: each is counted once or not at all, whichever process finishes it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use mongodb::bson::Bson;
use serde_json::Value;
use valet::model::Scope;

use super::{Caller, DateTime, Document, TestApp, after, doc, unique_png, usage, user_of};
use crate::mongodb_relay::{command, start_server_behind_relay};

/// Announces a step, which adds `added` (bytes, images, pending) to the counters, as a server that dies afterwards: the entry
/// exists, and the counters are unchanged. Returns the step's id.
async fn begin_step(ada: &Caller<'_>, image: &str, added: (i64, i64, i64), at: DateTime) -> String {
    let step = uuid::Uuid::now_v7().to_string();
    let (bytes, images, pending) = added;
    let record = ada.app.db_image(image).await.unwrap_or_default();
    let before = record.get("lastStep").cloned().unwrap_or(Bson::Null);
    let sorted_at =
        record.get_datetime("takenSort").copied().unwrap_or_else(|_| DateTime::now()).try_to_rfc3339_string().unwrap();
    let mut entry =
        doc! { "image": image, "step": &step, "before": before, "at": at, "bytes": bytes, "images": images, "pending": pending };
    if images != 0 {
        entry.extend(doc! { "month": &sorted_at[..7], "timeline": images });
    }
    let push = doc! { "$push": { "settling": entry } };
    ada.app.db.collection::<Document>("users").update_one(doc! { "_id": &ada.id }, push).await.unwrap();
    step
}

/// Updates the image with an announced step, as a server that dies afterwards: the counters are unchanged.
async fn take_step(app: &TestApp, image: &str, step: &str, mut update: Document) {
    update.entry("$set".to_owned()).or_insert_with(|| Document::new().into()).as_document_mut().unwrap().insert("lastStep", step);
    let images = app.db.collection::<Document>("images");
    assert_eq!(images.update_one(doc! { "_id": image }, update).await.unwrap().modified_count, 1);
}

/// Returns the number of unfinished steps in the user's record.
async fn steps_of(ada: &Caller<'_>) -> usize {
    user_of(ada).await.get_array("settling").map_or(0, Vec::len)
}

/// The process that finds an unfinished step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finder {
    Sweeper,
    Recount,
    Request,
}

/// A step that deletes a ready image was begun, or begun and taken, by a server that died.
#[tokio::test]
async fn unfinished_step_is_counted_once_by_any_process() {
    for finder in [Finder::Sweeper, Finder::Recount, Finder::Request] {
        for is_taken in [false, true] {
            let app = TestApp::start().await;
            let ada = app.user().await;
            let when = format!("{finder:?}, {is_taken}");
            let image = ada.upload("a.png", "image/png", &unique_png()).await;
            let (id, before) = (image["id"].as_str().unwrap(), usage(&ada).await);
            app.db_expire_urls(id).await;
            app.db
                .collection::<Document>("images")
                .update_one(doc! { "_id": id }, doc! { "$unset": { "due": "" } })
                .await
                .unwrap();
            let old = DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000);
            let at = if finder == Finder::Sweeper { old } else { DateTime::now() };
            let step = begin_step(&ada, id, (-before.0, -1, 0), at).await;
            if is_taken {
                let deleted = doc! { "$set": { "state": "deleting", "due": DateTime::now() }, "$unset": { "live": "" } };
                take_step(&app, id, &step, deleted).await;
            }
            match finder {
                Finder::Sweeper => drop(app.sweep(after(1)).await),
                Finder::Recount => drop(app.app.valet.recount.run(None, |_| ()).await.unwrap()),
                Finder::Request => assert_eq!(ada.delete(&format!("/api/images/{id}")).await.status, 204, "{when}"),
            }
            let is_deleted = is_taken || finder == Finder::Request;
            let expected = if is_deleted { (0, 0, 0) } else { before };
            // A request that finds the image deleted leaves the step to the sweeper.
            app.sweep(after(180)).await;
            assert_eq!((usage(&ada).await, steps_of(&ada).await), (expected, 0), "{when}");
            if !is_taken {
                let last = app.db_image(id).await.unwrap().get_str("lastStep").map(str::to_owned);
                let is_barred = last.as_ref().is_ok_and(|last| *last != step);
                assert!(is_barred, "{when}: the late server finds that another step was taken: {last:?}");
            }
            app.audit().await;
        }
    }
}

/// A step that was begun but not taken delays neither later steps of its image nor other users' steps.
#[tokio::test]
async fn unfinished_step_delays_neither_its_image_nor_other_users() {
    let app = TestApp::start().await;
    let (eve, ada) = (app.user().await, app.user().await);
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    begin_step(&ada, ticket.id(), (-1, 1, -1), DateTime::now()).await;
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
    let (_, images, pending) = usage(&ada).await;
    assert_eq!((images, pending, steps_of(&ada).await), (1, 0, 0));
    app.audit().await;
    let old = DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000);
    for _ in 0..150 {
        begin_step(&eve, &uuid::Uuid::now_v7().to_string(), (0, 0, 0), old).await;
    }
    begin_step(&ada, ticket.id(), (0, 0, 0), old).await;
    app.sweep(after(1)).await;
    assert_eq!(steps_of(&ada).await, 0, "in the first sweep");
    app.sweep(after(1)).await;
    assert_eq!(steps_of(&eve).await, 0);
    app.audit().await;
}

/// A server resumes after other servers have finished its step and taken the next one: it must not change the next one.
#[tokio::test]
async fn late_server_does_not_change_later_steps() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let ticket = ada.open_upload("a.png", "image/png", &unique_png()).await;
    let before = usage(&ada).await;
    let old = DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000);
    begin_step(&ada, ticket.id(), (-7, 1, -1), old).await;
    let next_step = "01a22134-8512-7399-92f9-0172c14bedce";
    take_step(&app, ticket.id(), next_step, Document::new()).await;
    app.sweep(after(1)).await;
    assert_eq!((usage(&ada).await, steps_of(&ada).await), (before, 0));
    let last = app.db_image(ticket.id()).await.unwrap().get_str("lastStep").unwrap().to_owned();
    assert_eq!(last, next_step);
    app.audit().await;
}

/// Returns whether the message to MongoDB makes an image ready.
fn makes_ready(message: &[u8]) -> bool {
    command(message).is_some_and(|command| command.contains_key("findAndModify") && format!("{command}").contains("\"ready\""))
}

/// A server pauses between announcing its step and making the image ready, and another server finishes the step meanwhile: the
/// image becomes ready in the same sweep, and is counted once.
#[tokio::test(flavor = "multi_thread")]
async fn upload_becomes_ready_although_another_server_finished_its_step() {
    let app = TestApp::start().await;
    let (paused, mut pauses) = tokio::sync::mpsc::unbounded_channel::<std::sync::mpsc::Sender<()>>();
    let has_paused = AtomicBool::new(false);
    let pause = move |message: &mut [u8]| {
        if makes_ready(message) && !has_paused.swap(true, Relaxed) {
            let (resume, resumed) = std::sync::mpsc::channel();
            paused.send(resume).unwrap();
            tokio::task::block_in_place(|| resumed.recv().unwrap());
        }
    };
    let slow = start_server_behind_relay(&app, Arc::new(pause), Arc::new(|_| {})).await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    let old = DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000);
    let due = doc! { "$set": { "due": old, "expiresAt": old, "urlsDieAt": old } };
    app.db.collection::<Document>("images").update_one(doc! { "_id": ticket.id() }, due).await.unwrap();
    let finish = async {
        let resume = pauses.recv().await.unwrap();
        assert_eq!(steps_of(&ada).await, 1);
        let aged = doc! { "$set": { "settling.0.at": old } };
        app.db.collection::<Document>("users").update_one(doc! { "_id": &ada.id }, aged).await.unwrap();
        app.sweep(after(1)).await;
        assert_eq!(steps_of(&ada).await, 0);
        resume.send(()).unwrap();
    };
    let (swept, ()) = tokio::join!(slow.sweep(after(1)), finish);
    assert_eq!((swept.confirmed, swept.failed), (1, 0), "{swept:?}");
    assert_eq!((app.db_state(ticket.id()).await.as_str(), steps_of(&ada).await), ("ready", 0));
    let (_, images, pending) = usage(&ada).await;
    assert_eq!((images, pending), (1, 0));
    app.audit().await;
}

/// The counters cannot be changed when the image becomes ready: it is confirmed, and counted later.
#[tokio::test]
async fn upload_is_confirmed_although_its_owners_counters_are_damaged() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    let users = app.db.collection::<Document>("users");
    let set = async |fields: Document| drop(users.update_one(doc! { "_id": &ada.id }, doc! { "$set": fields }).await.unwrap());
    let counted = user_of(&ada).await.get("usedBytes").unwrap().clone();
    set(doc! { "usedBytes": "damaged" }).await;
    let confirmed = ada.confirm(ticket.id()).await;
    assert_eq!((confirmed.status, &confirmed.json["id"]), (200, &ticket.json["id"]), "{confirmed:?}");
    set(doc! { "usedBytes": counted, "settling.0.at": DateTime::from_millis(1000) }).await;
    app.sweep(after(1)).await;
    assert_eq!(steps_of(&ada).await, 0);
    let (_, images, pending) = usage(&ada).await;
    assert_eq!((images, pending), (1, 0));
    app.audit().await;
}

/// A reader of a user's counters through the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Me,
    Timeline,
    User,
    Users,
    Opening,
    Deletion,
}

/// Undoes the last update of an image's confirm, as if the server had died before it: the image has taken its step, which is not
/// counted.
async fn uncount_confirm(ada: &Caller<'_>, image: &str) {
    let record = ada.app.db_image(image).await.unwrap();
    // Any number of bytes will do: the step subtracts them, and `undone` adds them.
    let (step, (bytes, images, pending)) = (record.get_str("lastStep").unwrap(), (-7, 1, -1));
    begin_step(ada, image, (bytes, images, pending), DateTime::now()).await;
    let entry = user_of(ada).await.get_array("settling").unwrap()[0].as_document().unwrap().clone();
    let month = format!("timeline.{}", entry.get_str("month").unwrap());
    let counters = doc! { "usedBytes": -bytes, "images": -images, "pending": -pending, month: -images };
    let undone = doc! { "$inc": counters, "$set": { "settling.0.step": step } };
    ada.app.db.collection::<Document>("users").update_one(doc! { "_id": &ada.id }, undone).await.unwrap();
}

/// A server dies after a confirm was answered and before it is counted: the next reader of the counters includes the image.
#[tokio::test]
async fn confirmed_image_is_counted_for_every_reader_although_its_server_died() {
    use Reader::{Deletion, Me, Opening, Timeline, User, Users};
    for reader in [Me, Timeline, User, Users, Opening, Deletion] {
        let app = TestApp::start_with(|config| config.uploads.max_pending = 1).await;
        let (ada, key) = (app.user().await, app.create_service_key(&Scope::ALL).await);
        let image = ada.upload("a.png", "image/png", &unique_png()).await;
        let id = image["id"].as_str().unwrap();
        let before = usage(&ada).await;
        uncount_confirm(&ada, id).await;
        assert_eq!((user_of(&ada).await.get_i64("images").unwrap(), steps_of(&ada).await), (0, 1));
        let counted = |answer: &Value| (answer["bytes"].as_i64().unwrap(), answer["images"].as_i64().unwrap());
        match reader {
            Me => assert_eq!(usage(&ada).await, before),
            Timeline => assert_eq!(ada.get("/api/images/timeline").await.json["months"][0]["count"], 1),
            User => {
                let user = key.get(&format!("/api/admin/users/{}", ada.id)).await;
                assert_eq!(counted(&user.json["usage"]), (before.0, before.1), "{user:?}");
            }
            Users => {
                let users = key.get(&format!("/api/admin/users?email={}", ada.email)).await;
                assert_eq!(counted(&users.json["users"][0]["usage"]), (before.0, before.1), "{users:?}");
            }
            Opening => assert_eq!(ada.open_upload("b.png", "image/png", &unique_png()).await.status, 201),
            Deletion => {
                assert_eq!(ada.delete(&format!("/api/images/{id}")).await.status, 204);
                let (_, images, pending) = usage(&ada).await;
                assert_eq!((images, pending), (0, 0));
            }
        }
        assert_eq!(steps_of(&ada).await, 0, "{reader:?}");
        app.sweep(after(180)).await;
        app.audit().await;
    }
}
