//! Covers a gateway in front of the store that does not know the calls for the bucket's settings, and answers them with its own
//! 404.

use std::sync::{Arc, Mutex};

use super::{Options, app, doctor};
use crate::{
    relay::{empty_answer, relay_s3},
    store_notifications::local_queue::LocalQueue,
};

/// Query of each setting, and its name among the changes of `--fix`.
const SETTINGS: [(&str, &str); 4] = [
    ("cors", "CORS"),
    ("lifecycle", "lifecycle rule for abandoned multiparts"),
    ("publicAccessBlock", "public access block"),
    ("notification", "notifications"),
];

/// If such a 404 counted as an absent setting, `--fix` would overwrite the setting, and with it the rules of other programs.
#[tokio::test(flavor = "multi_thread")]
async fn a_404_without_the_code_of_an_absent_setting_changes_nothing() {
    let store = app().await;
    let queue = LocalQueue::default().serve(([127, 0, 0, 1], 0).into()).await;
    for page in [
        "",
        "<html><body><h1>404 Not Found</h1></body></html>",
        r#"{"message":"no Route matched with those values"}"#,
        "<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>",
        "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>",
    ] {
        let written = Arc::<Mutex<Vec<String>>>::default();
        let seen = written.clone();
        let endpoint = relay_s3(&store, move |request| {
            let is_of = |setting: &str| request.query().split('&').any(|item| item.split('=').next() == Some(setting));
            let setting = SETTINGS.iter().find(|(setting, _)| is_of(setting));
            if let (Some((setting, _)), "PUT") = (setting, request.parts.method.as_str()) {
                seen.lock().unwrap().push((*setting).to_owned());
            }
            let is_read = setting.is_some() && request.parts.method == "GET";
            async move {
                if is_read {
                    let mut answer = empty_answer(404);
                    *answer.body_mut() = page.into();
                    answer
                } else {
                    request.forward().await
                }
            }
        })
        .await;
        let mut config = store.config.clone();
        config.s3.endpoint = Some(endpoint.parse().unwrap());
        config.store_events.queue = Some(queue.url());
        let report = doctor::run(&config, Options { fix: true, loopback: false }).await;
        assert_eq!(*written.lock().unwrap(), Vec::<String>::new(), "{page}");
        for (_, name) in SETTINGS {
            let change = report.changes.iter().find_map(|change| change.strip_prefix(name)?.strip_prefix(": not set: "));
            assert!(change.is_some_and(|why| why.contains("404")), "{page}: {name}: {:?}", report.changes);
        }
    }
}
