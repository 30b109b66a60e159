//! Covers a store that sends a bucket's notifications to an SQS queue itself: `LocalStack`, in its step of `.ci/run`.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_sdk_s3::types::{
    Event, FilterRule, FilterRuleName, NotificationConfiguration, NotificationConfigurationFilter, QueueConfiguration,
    S3KeyFilter,
};
use aws_sdk_sqs::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    types::QueueAttributeName,
};
use futures_util::future::join_all;
use secrecy::ExposeSecret;
use valet::{
    config::QueueUrl,
    domain::doctor::{self, Answer, Options},
};

use super::Abandoned;
use crate::{
    app::{TestApp, s3_is_local},
    servers::servers,
    skipping::skip,
};

/// Returns an SQS client of the store under test.
fn client() -> Client {
    let keys = &servers().keys;
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(&servers().s3_endpoint)
        .credentials_provider(Credentials::new(&keys.access_key_id, keys.secret_access_key.expose_secret(), None, None, "tests"));
    Client::from_conf(config.build())
}

/// Name of the rule in `valet check`.
const RULE: &str = "bucket: uploads are announced";

/// Configures the bucket to announce objects of another program to another queue.
async fn announce_logs(app: &TestApp, arn: &str) {
    let prefix = FilterRule::builder().name(FilterRuleName::Prefix).value("logs/").build();
    let filter = NotificationConfigurationFilter::builder().key(S3KeyFilter::builder().filter_rules(prefix).build()).build();
    let rule = QueueConfiguration::builder().id("logs").queue_arn(arn).events(Event::S3ObjectCreated).filter(filter);
    let rules = NotificationConfiguration::builder().queue_configurations(rule.build().unwrap()).build();
    let put = app.s3.put_bucket_notification_configuration().bucket(&app.config.s3.bucket);
    put.notification_configuration(rules).send().await.unwrap();
}

/// Creates a queue; returns its URL. Reports the test as skipped and returns `None` if the store has no queues.
async fn create_queue(sqs: &Client) -> Option<String> {
    if s3_is_local() {
        skip("needs LocalStack's SQS");
        return None;
    }
    let name = format!("t-{}", uuid::Uuid::new_v4().simple());
    match sqs.create_queue().queue_name(&name).send().await {
        // With the address at which the tests reach the store: LocalStack's own URL has a host name that does not resolve.
        Ok(_) => Some(format!("{}/000000000000/{name}", servers().s3_endpoint)),
        Err(_) => {
            skip("needs a store with SQS");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_is_confirmed_at_once_when_the_store_announces_its_object() {
    let sqs = client();
    let Some(url) = create_queue(&sqs).await else { return };
    let queue = QueueUrl::parse(&url).unwrap();
    let app = TestApp::start_with(|config| config.store_events.queue = Some(queue)).await;
    let other_queue = create_queue(&sqs).await.unwrap();
    announce_logs(&app, &format!("arn:aws:sqs:us-east-1:000000000000:{}", QueueUrl::parse(&other_queue).unwrap().name())).await;
    let before = doctor::run(&app.config, Options::default()).await;
    assert!(matches!(before.answer(RULE), Some(Answer::No(_))), "{before}");
    for change in ["notifications: set", "notifications: was set already"] {
        let fixed = doctor::run(&app.config, Options { fix: true, ..Options::default() }).await;
        assert!(matches!(fixed.answer(RULE), Some(Answer::Yes(_))), "{fixed}");
        assert!(fixed.changes.iter().any(|made| made == change), "{:?}", fixed.changes);
    }
    let configured = app.s3.get_bucket_notification_configuration().bucket(&app.config.s3.bucket).send().await.unwrap();
    let mut names: Vec<_> = configured.queue_configurations().iter().filter_map(|rule| rule.id()).collect();
    names.sort_unstable();
    assert_eq!(names, ["logs", "valet-in", "valet-u"], "rules of others are kept");
    let ada = app.user().await;
    let mut delays = Vec::new();
    for _ in 0..40 {
        let upload = Abandoned::sent(&ada).await;
        let began = Instant::now();
        while app.db_state(&upload.id).await != "ready" {
            // Without notifications, only a sweep would confirm it, an hour later.
            assert!(began.elapsed() < Duration::from_secs(30), "{} is not ready", upload.id);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        delays.push(began.elapsed());
    }
    delays.sort();
    // Less than the time for which a poll of the queue waits.
    assert!(delays[20] < Duration::from_secs(10), "{delays:?}");
    println!("S3's answer to ready: median {:?}, longest {:?}", delays[20], delays[39]);
    let uploads = join_all((0..20).map(async |_| Abandoned::sent(&ada).await)).await;
    for upload in &uploads {
        app.until_state(&upload.id, "ready").await;
    }
    let counts_request = sqs.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::All);
    crate::app::eventually("every message is deleted", async || {
        let attributes = counts_request.clone().send().await.unwrap().attributes.unwrap_or_else(HashMap::new);
        let counts = [QueueAttributeName::ApproximateNumberOfMessages, QueueAttributeName::ApproximateNumberOfMessagesNotVisible];
        counts.iter().all(|count| attributes[count] == "0")
    })
    .await;
    app.audit().await;
}
