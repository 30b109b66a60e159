//! Covers lifecycle rules: rules that would delete or archive images are reported, others are not.

use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, Transition,
    TransitionStorageClass, builders::LifecycleRuleBuilder,
};
use valet::domain::doctor::{self, Answer, Options};

use crate::app::{TestApp, skip_unless_local_s3};

/// Returns an enabled lifecycle rule for a prefix, which has no action yet.
fn rule(id: &str, prefix: &str) -> LifecycleRuleBuilder {
    let filter = LifecycleRuleFilter::builder().prefix(prefix).build();
    LifecycleRule::builder().id(id).status(ExpirationStatus::Enabled).filter(filter)
}

#[tokio::test]
async fn lifecycle_rules_over_images_are_reported() {
    if skip_unless_local_s3() {
        return;
    }
    let app = TestApp::start_with(|config| config.cors.exact.clear()).await;
    let days = |n| LifecycleExpiration::builder().days(n).build();
    let to = |class| Transition::builder().days(90).storage_class(class).build();
    // Rules, and the expected findings about their expirations and transitions.
    for (rules, expiring, archiving) in [
        (
            vec![
                rule("logs", "logs/").expiration(days(1)).build().unwrap(),
                rule("spent", "in/").expiration(days(365)).build().unwrap(),
                rule("cold", "").transitions(to(TransitionStorageClass::StandardIa)).build().unwrap(),
            ],
            None,
            None,
        ),
        (
            vec![
                rule("all", "").expiration(days(30)).build().unwrap(),
                rule("hasty", "in/").expiration(days(1)).build().unwrap(),
                rule("frozen", "u/").transitions(to(TransitionStorageClass::DeepArchive)).build().unwrap(),
            ],
            Some("rule \"all\": u/, in/, valet/ after 30 days; rule \"hasty\": in/ after 1 days"),
            Some("rule \"frozen\": u/ after 90 days"),
        ),
    ] {
        let configuration = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build().unwrap();
        let put =
            app.s3.put_bucket_lifecycle_configuration().bucket(&app.config.s3.bucket).lifecycle_configuration(configuration);
        put.send().await.unwrap();
        let report = doctor::run(&app.config, Options::default()).await;
        for (name, expected) in [("bucket: no rule deletes images", expiring), ("bucket: no rule archives images", archiving)] {
            let description = match report.answer(name) {
                Some(Answer::No(description)) => Some(description.as_str()),
                Some(Answer::Yes(_)) => None,
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(description, expected, "{name}");
        }
        assert_eq!(report.is_sound(), expiring.is_none());
    }
}
