//! C7: what was acknowledged survives, since every write is acknowledged by a majority and in its journal.

use std::{path::PathBuf, process::Command};

use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};
use secrecy::ExposeSecret;
use valet::dev::mongod::{Mongod, MongodOptions};

use crate::app::{Caller, TestApp, unique_png};

/// The move to ready, after which the 200 is sent, asks for the majority and the journal.
#[tokio::test]
async fn c7_the_move_to_ready_waits_for_the_majority_and_the_journal() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let bytes = unique_png();
    let ticket = ada.issue("a.png", "image/png", &bytes).await;
    assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
    app.db.run_command(doc! { "profile": 2 }).await.unwrap();
    assert_eq!(ada.confirm(ticket.id()).await.status, 200);
    app.db.run_command(doc! { "profile": 0 }).await.unwrap();
    let moves = doc! { "command.findAndModify": "images" };
    let profile = app.db.collection::<Document>("system.profile");
    let found: Vec<Document> = profile.find(moves).await.unwrap().try_collect().await.unwrap();
    assert_eq!(found.len(), 1, "one conditional update: {found:?}");
    let concern = found[0].get_document("writeConcern").unwrap();
    assert_eq!((concern.get_str("w").unwrap(), concern.get_bool("j").unwrap()), ("majority", true), "{}", found[0]);
}

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The database is killed on the acknowledgement, again and again: it comes back with what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn c7_f1_what_was_acknowledged_outlives_the_database() {
    let folder = Folder(std::env::temp_dir().join(format!("valet-c7-{}", uuid::Uuid::new_v4().simple())));
    let options = || MongodOptions::new(folder.0.join("mongodb"));
    let mut mongod = Mongod::start(options()).await.unwrap();
    let mut app = TestApp::start_with(|config| config.mongo.uri = mongod.uri().into()).await;
    let ada = app.user().await;
    let (token, id, email) = (ada.token.clone(), ada.id.clone(), ada.email.clone());
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let ada = Caller { app: &app, token: token.clone(), id: id.clone(), email: email.clone() };
        let bytes = unique_png();
        let ticket = ada.issue("a.png", "image/png", &bytes).await;
        assert_eq!(app.put(&ticket.json["upload"], bytes).await, 200);
        assert_eq!(ada.confirm(ticket.id()).await.status, 200);
        acknowledged.push(ticket.id().to_owned());
        if round % 2 == 1 {
            let deleted = acknowledged.remove(0);
            assert_eq!(ada.delete(&format!("/api/images/{deleted}")).await.status, 204);
        }
        assert!(Command::new("kill").args(["-KILL", &mongod.pid().to_string()]).status().unwrap().success());
        mongod.ended().await;
        drop(mongod);
        mongod = Mongod::start(options()).await.unwrap();
        app = TestApp::beside(&app, |config| config.mongo.uri = mongod.uri().into()).await;
        assert_eq!(app.config.mongo.uri.expose_secret(), mongod.uri());
        let ada = Caller { app: &app, token: token.clone(), id: id.clone(), email: email.clone() };
        let gallery = ada.get("/api/images/gallery").await;
        let listed: Vec<_> = gallery.json["images"].as_array().unwrap().iter().map(|image| image["id"].clone()).collect();
        let newest_first: Vec<_> = acknowledged.iter().rev().cloned().collect();
        assert_eq!(listed, newest_first, "after {} deaths", round + 1);
    }
}
