//! The backend of an app: a service key, and an endpoint that receives the events of all changes.

use std::{
    collections::BTreeSet,
    sync::Mutex,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use mongodb::bson::{DateTime, Document, doc};
use secrecy::ExposeSecret;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use valet::{
    domain::{Valet, service_keys::NewServiceKey},
    model::{KeyName, Scope},
};

use crate::webhook_receiver::{Message, Receiver, Reply, status};

/// `WEBHOOK_SECRET` of all servers.
pub const WEBHOOK_SECRET: &str = "canary-of-webhooks-0123456789-abcdefghijklm";
/// Time for which a server claims a delivery: `LEASE` of src/store/deliveries.rs.
const LEASE: Duration = Duration::from_secs(60);
/// Time in which a running server ends an attempt, because the receiver answers at once.
const ATTEMPT: Duration = Duration::from_secs(2);

/// A service key of the cluster, and its only webhook endpoint.
pub struct Backend {
    /// Service key with all scopes.
    pub key: String,
    /// Signing secret of the endpoint.
    pub secret: String,
    receiver: Receiver,
    /// Events whose claim was ended early by the test.
    claims_ended_early: Mutex<BTreeSet<String>>,
}

/// Answers 503 to the first attempt of one message in sixteen, and 204 to all other attempts.
fn reply(messages: &[Message]) -> Reply {
    let Some((last, earlier)) = messages.split_last() else { return status(500) };
    let is_unlucky = last.id.bytes().map(u32::from).sum::<u32>().is_multiple_of(16);
    status(if is_unlucky && earlier.iter().all(|message| message.id != last.id) { 503 } else { 204 })
}

impl Backend {
    /// Creates the key and the endpoint.
    pub async fn start(valet: &Valet) -> Self {
        let receiver = Receiver::start(reply).await;
        let (now, endpoints) = (OffsetDateTime::now_utc(), valet.endpoints.as_ref().unwrap());
        let endpoint = endpoints.add(&receiver.url, Vec::new(), now).await.unwrap();
        let secret = endpoints.secret(&endpoint.id).await.unwrap().expose_secret().to_owned();
        let key = NewServiceKey { name: KeyName::parse("load").unwrap(), scopes: Scope::ALL.to_vec(), lifetime: None };
        let key = valet.service_keys.create(key, now).await.unwrap().expose_secret().to_owned();
        Self { key, secret, receiver, claims_ended_early: Mutex::default() }
    }

    /// Returns the messages that were received so far.
    pub fn messages(&self) -> Vec<Message> {
        self.receiver.messages()
    }

    /// Returns the events whose claim was ended early, so that a second delivery may follow before a claim ends.
    pub fn claims_ended_early(&self) -> BTreeSet<String> {
        self.claims_ended_early.lock().unwrap().clone()
    }

    /// Delivers the waiting events in this process, beside the servers, without the pauses between attempts and the leases of dead
    /// servers.
    pub async fn deliver_without_pauses(&self, valet: &Valet, db: &mongodb::Database) {
        while valet.event_fan_out.fan_out_once(OffsetDateTime::now_utc()).await.unwrap().more {}
        let stop = CancellationToken::new();
        let delivery = valet.webhook_delivery.clone().unwrap();
        let delivering = tokio::spawn({
            let (delivery, stop) = (delivery.clone(), stop.clone());
            async move { delivery.run_until(stop).await }
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) && self.make_due(db).await {
            delivery.wake();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stop.cancel();
        delivering.await.unwrap();
    }

    /// Makes the deliveries due that wait for another attempt, or were claimed by a server that is dead. Returns whether any
    /// delivery waits.
    async fn make_due(&self, db: &mongodb::Database) -> bool {
        let deliveries = db.collection::<Document>("deliveries");
        // `due` of a claimed delivery is the end of its claim: these were claimed more than `ATTEMPT` ago.
        let long_claimed: DateTime = (std::time::SystemTime::now() + LEASE - ATTEMPT).into();
        let claimed = doc! { "lease": { "$exists": true }, "due": { "$lt": long_claimed, "$gt": DateTime::from_millis(0) } };
        let found: Vec<_> = deliveries.find(claimed.clone()).await.unwrap().try_collect().await.unwrap();
        self.claims_ended_early
            .lock()
            .unwrap()
            .extend(found.iter().map(|delivery| delivery.get_str("event").unwrap().to_owned()));
        let waiting = doc! { "lease": { "$exists": false }, "due": { "$exists": true } };
        let now = doc! { "$set": { "due": DateTime::from_millis(0) } };
        for filter in [claimed, waiting] {
            deliveries.update_many(filter, now.clone()).await.unwrap();
        }
        deliveries.find_one(doc! { "due": { "$exists": true } }).await.unwrap().is_some()
    }
}
