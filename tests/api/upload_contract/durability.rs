//! Covers durability (requirement C7): acknowledged writes survive, because a majority has them in the journal.

use std::{
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
};

use secrecy::ExposeSecret;
use valet::dev::mongod::{Mongod, MongodOptions};

use crate::{
    app::{Caller, TestApp, unique_png},
    mongodb_relay::{command, start_server_behind_relay},
};

/// Every write from an upload to its deletion has write concern majority with journal.
#[tokio::test]
async fn c7_every_write_waits_for_the_majority_and_the_journal() {
    let app = TestApp::start().await;
    let commands = Arc::new(Mutex::new(Vec::new()));
    let record = {
        let commands = commands.clone();
        move |message: &mut [u8]| commands.lock().unwrap().extend(command(message))
    };
    let watched = start_server_behind_relay(&app, Arc::new(record), Arc::new(|_| {})).await;
    let ada = watched.user().await;
    let image = ada.upload("a.png", "image/png", &unique_png()).await;
    let ticket = ada.open_upload("b.png", "image/png", &unique_png()).await;
    assert_eq!(ada.post_empty(&format!("/api/images/{}/renew", ticket.id())).await.status, 200);
    for id in [image["id"].as_str().unwrap(), ticket.id()] {
        assert_eq!(ada.delete(&format!("/api/images/{id}")).await.status, 204);
    }
    watched.app.valet.sweeper.sweep().await.unwrap();
    let writes = ["insert", "update", "delete", "findAndModify"];
    let mut counts = std::collections::BTreeMap::new();
    for command in commands.lock().unwrap().iter() {
        let name = command.keys().next().unwrap();
        assert_ne!(name, "commitTransaction", "no request needs a transaction");
        if !writes.contains(&name.as_str()) {
            continue;
        }
        let concern = command.get_document("writeConcern").unwrap_or_else(|_| panic!("{command}"));
        assert_eq!((concern.get_str("w").unwrap(), concern.get_bool("j").unwrap()), ("majority", true), "{command}");
        *counts.entry(name.clone()).or_insert(0) += 1;
    }
    assert!(counts["insert"] >= 3 && counts["update"] >= 4, "{counts:?}");
}

/// A folder that is removed with its test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The database is killed after the last acknowledgement of each round: after a restart it has everything that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn c7_f1_acknowledged_writes_survive_a_killed_database() {
    let folder = Folder(std::env::temp_dir().join(format!("valet-c7-{}", uuid::Uuid::new_v4().simple())));
    let options = || MongodOptions::new(folder.0.join("mongodb"));
    let mut mongod = Mongod::start(options()).await.unwrap();
    let mut app = TestApp::start_with(|config| config.mongo.uri = mongod.uri().into()).await;
    let ada = app.user().await;
    let (token, id, email) = (ada.token.clone(), ada.id.clone(), ada.email.clone());
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let ada = Caller { app: &app, token: token.clone(), id: id.clone(), email: email.clone(), address: None };
        let bytes = unique_png();
        let ticket = ada.open_upload("a.png", "image/png", &bytes).await;
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
        app = TestApp::start_second_server(&app, |config| config.mongo.uri = mongod.uri().into()).await;
        assert_eq!(app.config.mongo.uri.expose_secret(), mongod.uri());
        let ada = Caller { app: &app, token: token.clone(), id: id.clone(), email: email.clone(), address: None };
        let gallery = ada.get("/api/images/gallery").await;
        let listed: Vec<_> = gallery.json["images"].as_array().unwrap().iter().map(|image| image["id"].clone()).collect();
        let newest_first: Vec<_> = acknowledged.iter().rev().cloned().collect();
        assert_eq!(listed, newest_first, "after {} deaths", round + 1);
    }
}
