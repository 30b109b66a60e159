//! Compares the bucket settings in deploy/aws and localstack/bucket.py with those that `valet check --fix` sets.

use serde_json::{Value, json};
use valet::domain::doctor::{self, Options};

use super::file;
use crate::app::{TestApp, skip_unless_local_s3};

#[tokio::test]
async fn files_contain_the_settings_of_check_fix() {
    if skip_unless_local_s3() {
        return;
    }
    let read = |name: &str| serde_json::from_str::<Value>(&file(name)).unwrap();
    let (cors, lifecycle, block) = (read("aws/cors.json"), read("aws/lifecycle.json"), read("aws/public-access-block.json"));
    let origin = cors["CORSRules"][0]["AllowedOrigins"][0].as_str().unwrap().to_owned();
    let app = TestApp::start_with(|config| config.cors.exact = vec![origin]).await;
    doctor::run(&app.config, Options { fix: true, loopback: false }).await;

    let bucket = &app.config.s3.bucket;
    let set = app.s3.get_bucket_cors().bucket(bucket).send().await.unwrap();
    let [rule] = set.cors_rules() else { panic!("{set:?}") };
    let rule = json!({
        "ID": rule.id(), "AllowedOrigins": rule.allowed_origins(), "AllowedMethods": rule.allowed_methods(),
        "AllowedHeaders": rule.allowed_headers(), "ExposeHeaders": rule.expose_headers(), "MaxAgeSeconds": rule.max_age_seconds(),
    });
    assert_eq!(cors, json!({ "CORSRules": [rule] }));

    let set = app.s3.get_bucket_lifecycle_configuration().bucket(bucket).send().await.unwrap();
    let [rule] = set.rules() else { panic!("{set:?}") };
    let days = rule.abort_incomplete_multipart_upload().unwrap().days_after_initiation();
    let rule = json!({
        "ID": rule.id(), "Status": rule.status().as_str(), "Filter": { "Prefix": rule.filter().unwrap().prefix() },
        "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": days },
    });
    assert_eq!(lifecycle, json!({ "Rules": [rule] }));

    let set = app.s3.get_public_access_block().bucket(bucket).send().await.unwrap();
    let set = set.public_access_block_configuration().unwrap();
    let flags = json!({
        "BlockPublicAcls": set.block_public_acls(), "IgnorePublicAcls": set.ignore_public_acls(),
        "BlockPublicPolicy": set.block_public_policy(), "RestrictPublicBuckets": set.restrict_public_buckets(),
    });
    assert_eq!(block, flags);
}

/// The CORS rules of LocalStack's bucket are those of deploy/aws/cors.json, for any origin.
#[test]
fn bucket_of_localstack_has_the_cors_rules_of_production() {
    let root = env!("CARGO_MANIFEST_DIR");
    let script = std::fs::read_to_string(format!("{root}/localstack/bucket.py")).unwrap();
    let rule = &serde_json::from_str::<Value>(&file("aws/cors.json")).unwrap()["CORSRules"][0];
    let list = |name: &str| {
        let (_, rest) = script.split_once(&format!("\"{name}\": [")).unwrap();
        let (items, _) = rest.split_once(']').unwrap();
        items.split('"').skip(1).step_by(2).collect::<Vec<_>>()
    };
    for name in ["AllowedMethods", "AllowedHeaders", "ExposeHeaders"] {
        assert_eq!(rule[name], json!(list(name)), "{name}");
    }
    assert_eq!(list("AllowedOrigins"), ["*"]);
    assert!(script.contains(&format!("\"MaxAgeSeconds\": {},", rule["MaxAgeSeconds"])));
}
