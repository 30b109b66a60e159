//! Event streams while primaries change: every acknowledged change is announced on every server, on the same connection, and no
//! client is reset.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mongodb::{
    Client, Collection,
    bson::{Document, doc},
    options::{Acknowledgment, CollectionOptions, WriteConcern},
};
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, Options},
    replica_set::ReplicaSet,
    servers::scratch_dir,
};

/// Text that a client has received.
type Received = Arc<Mutex<String>>;

/// Opens the event stream of a server; returns the text that it receives, which grows.
async fn follow(base: &str, token: &str) -> Received {
    let request = reqwest::Client::new().get(format!("{base}/api/events")).bearer_auth(token);
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let received = Received::default();
    let text = received.clone();
    tokio::spawn(async move {
        while let Ok(Some(chunk)) = response.chunk().await {
            text.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk));
        }
        text.lock().unwrap().push_str("event: ended\n");
    });
    received
}

/// Returns the ids of the images that a stream has announced.
fn announced(received: &Received) -> BTreeSet<String> {
    let text = received.lock().unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str::<Value>(data).unwrap()["id"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Inserts and updates one image after another until `until`; returns the ids of those whose update was acknowledged.
async fn change(images: &Collection<Document>, user: &str, until: Instant) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    while Instant::now() < until {
        let id = uuid::Uuid::now_v7().to_string();
        let inserted = images.insert_one(doc! { "_id": &id, "user": user, "state": "ready" }).await;
        let update = doc! { "$set": { "caption": "The sea" } };
        if inserted.is_ok() && images.update_one(doc! { "_id": &id }, update).await.is_ok() {
            acknowledged.insert(id);
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "two elections under load, by command"]
async fn event_streams_survive_elections() {
    let set = ReplicaSet::start(3, &scratch_dir().join(uuid::Uuid::new_v4().to_string())).await;
    let cluster = Cluster::start(Options { servers: 2, mongodb: Some(set.uri()), ..Options::default() }).await;
    let account =
        json!({ "email": format!("{}@example.com", uuid::Uuid::new_v4().simple()), "password": "three small blue boats" });
    let signup = reqwest::Client::new().post(format!("{}/api/auth/signup", cluster.servers[0].base())).json(&account).send();
    let session: Value = signup.await.unwrap().json().await.unwrap();
    let (token, user) = (session["token"].as_str().unwrap(), session["user"]["id"].as_str().unwrap());
    let streams = [follow(&cluster.servers[0].base(), token).await, follow(&cluster.servers[1].base(), token).await];
    let majority =
        CollectionOptions::builder().write_concern(WriteConcern::builder().w(Acknowledgment::Majority).build()).build();
    let images =
        Client::with_uri_str(set.uri()).await.unwrap().database(cluster.db.name()).collection_with_options("images", majority);

    let mut acknowledged = BTreeSet::new();
    for round in 0..2 {
        let primary = set.primary().await;
        let work = change(&images, user, Instant::now() + Duration::from_secs(20));
        let fault = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            if round == 0 { set.kill(primary) } else { set.step_down().await }
        };
        let (changed, ()) = tokio::join!(work, fault);
        assert!(changed.len() > 20, "changes were acknowledged in round {round}: {}", changed.len());
        acknowledged.extend(changed);
        set.restart();
        set.primary().await;
    }
    let deadline = Instant::now() + Duration::from_secs(40);
    for received in &streams {
        while !announced(received).is_superset(&acknowledged) {
            let missing = acknowledged.difference(&announced(received)).count();
            assert!(Instant::now() < deadline, "{missing} of {} changes were not announced", acknowledged.len());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let text = received.lock().unwrap();
        assert!(!text.contains("event: reset") && !text.contains("event: ended"), "neither a reset nor an end");
    }
    println!("{} changes were announced on both servers", acknowledged.len());
}
