//! Table and property tests of decoding notifications: those of each kind of store, malformed ones, and other texts.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};
use time::macros::datetime;

use super::{
    ImageId, KeyOwner, ObjectKey, UserId,
    s3_event::{EventRecord, IgnoredRecord, MAX_NOTIFICATION_BYTES, WrittenObject, decode_notification},
};

const BUCKET: &str = "photos";
const USER: &str = "0198c2f4-6b1a-7cc3-9f1e-2a4b6c8d0e1f";
const IMAGE: &str = "0198c2f4-7a00-7abc-8123-456789abcdef";

/// Returns the owner in the key.
fn owner() -> KeyOwner {
    KeyOwner { user: UserId::parse(USER).unwrap(), image: ImageId::parse(IMAGE).unwrap() }
}

/// Returns the final key of the image.
fn key() -> String {
    format!("u/{USER}/{IMAGE}")
}

/// Returns a record as Amazon S3 sends it, with this event, bucket and encoded key.
fn record(event: &str, bucket: &str, key: &str) -> Value {
    json!({
        "eventVersion": "2.6", "eventSource": "aws:s3", "awsRegion": "eu-central-1", "eventTime": "2026-08-21T10:00:00.123Z",
        "eventName": event,
        "userIdentity": { "principalId": "AWS:AIDAJDPLRKLG7UEXAMPLE" },
        "requestParameters": { "sourceIPAddress": "127.0.0.1" },
        "responseElements": { "x-amz-request-id": "C3D13FE58DE4C810" },
        "s3": {
            "s3SchemaVersion": "1.0", "configurationId": "valet",
            "bucket": {
                "name": bucket, "ownerIdentity": { "principalId": "A3NL1KOZZKExample" }, "arn": format!("arn:aws:s3:::{bucket}")
            },
            "object": { "key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "0055AED6DCD90281E5" }
        }
    })
}

/// Puts records into a notification of Amazon S3.
fn records(records: &[Value]) -> Value {
    json!({ "Records": records })
}

/// Returns an event of Amazon `EventBridge`.
fn event_bridge(kind: &str, bucket: &str, key: &str) -> Value {
    json!({
        "version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": kind, "source": "aws.s3",
        "account": "111122223333", "time": "2026-08-21T10:00:00Z", "region": "eu-central-1",
        "resources": [format!("arn:aws:s3:::{bucket}")],
        "detail": {
            "version": "0", "bucket": { "name": bucket },
            "object": { "key": key, "size": 5, "etag": "b1946ac92492d2347c6235b4d2611184", "sequencer": "00617F08299329D189" },
            "request-id": "N4N7GDK58NMKJ12R", "requester": "123456789012", "reason": "PutObject"
        }
    })
}

/// Returns a message of Cloudflare R2.
fn r2(action: &str, bucket: &str, key: &str) -> Value {
    json!({
        "account": "3f4b7e3dcab231cbfdaa90a6a28bd548", "action": action, "bucket": bucket,
        "object": { "key": key, "size": 65536, "eTag": "c846ff7a18f28c2e262116d6e8719ef0" }, "eventTime": "2026-08-21T10:00:00.000Z"
    })
}

/// Puts a notification into a message of SNS.
fn sns(message: &Value) -> Value {
    json!({
        "Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:eu-central-1:123456789012:photos", "Subject": "Amazon S3 Notification",
        "Message": message.to_string(), "Timestamp": "2026-08-21T10:00:00.345Z", "SignatureVersion": "1", "Signature": "EXAMPLE"
    })
}

/// Returns a key as Ceph RGW and others write it, which escape slashes.
fn escaped(key: &str) -> String {
    key.replace('/', "%2F")
}

/// Puts a notification into an envelope of `CloudEvents`.
fn cloud_event(data: &Value) -> Value {
    json!({
        "specversion": "1.0", "id": "1", "source": "ceph:s3.a.photos", "type": "com.amazonaws.s3:ObjectCreated:Put", "data": data
    })
}

/// Decodes a notification of the bucket.
fn decoded(body: &Value) -> Vec<EventRecord> {
    decode_notification(body.to_string().as_bytes(), BUCKET)
}

/// Returns a text for each record: the upload's key of a written object, with ` (preview)` behind it if the object is the preview;
/// the reason of an ignored record.
fn summaries(records: &[EventRecord]) -> Vec<String> {
    let summary = |record: &EventRecord| match record {
        EventRecord::Written(object) if object.is_preview => format!("{} (preview)", object.upload_key),
        EventRecord::Written(object) => object.upload_key.to_string(),
        EventRecord::Ignored(why) => why.as_str().to_owned(),
    };
    records.iter().map(summary).collect()
}

#[test]
fn every_form_of_notification_names_the_written_object() {
    let mut minio_notification = records(&[record("s3:ObjectCreated:Put", BUCKET, &escaped(&key()))]);
    minio_notification["EventName"] = "s3:ObjectCreated:Put".into();
    minio_notification["Key"] = format!("{BUCKET}/{}", key()).into();
    let mut rgw_record = record("ObjectCreated:Put", BUCKET, &key());
    rgw_record["eventSource"] = "ceph:s3".into();
    rgw_record["opaqueData"] = "photos".into();
    let put = record("ObjectCreated:Put", BUCKET, &key());
    for (name, body) in [
        ("S3", records(std::slice::from_ref(&put))),
        ("S3, completed", records(&[record("ObjectCreated:CompleteMultipartUpload", BUCKET, &key())])),
        ("S3, form", records(&[record("ObjectCreated:Post", BUCKET, &key())])),
        ("MinIO", minio_notification),
        ("RGW", records(&[rgw_record])),
        ("SNS", sns(&records(std::slice::from_ref(&put)))),
        ("EventBridge", event_bridge("Object Created", BUCKET, &key())),
        ("EventBridge through SNS", sns(&event_bridge("Object Created", BUCKET, &key()))),
        ("R2", r2("PutObject", BUCKET, &key())),
        ("R2, completed", r2("CompleteMultipartUpload", BUCKET, &key())),
        ("CloudEvents", cloud_event(&records(std::slice::from_ref(&put)))),
        ("CloudEvents of one record", cloud_event(&put)),
        ("a record alone", put.clone()),
    ] {
        assert_eq!(summaries(&decoded(&body)), [key()], "{name}");
    }
    let expected = WrittenObject {
        owner: owner(),
        upload_key: ObjectKey::final_for(owner().user, owner().image),
        is_preview: false,
        sent_at: Some(datetime!(2026-08-21 10:00:00.123 UTC)),
    };
    assert_eq!(decoded(&records(&[put])), [EventRecord::Written(expected)]);
}

#[test]
fn every_key_to_which_clients_upload_is_known_and_no_other() {
    let (incoming, preview) = (format!("in/{USER}/{IMAGE}"), format!("{}-preview", key()));
    for (text, wanted) in [
        (key(), key()),
        (preview, format!("{} (preview)", key())),
        (incoming.clone(), incoming.clone()),
        (format!("{incoming}-preview"), format!("{incoming} (preview)")),
        // A copy is made by Valet.
        (format!("{}-{}", key(), "0123456789ab4def8123456789abcdef"), "other_key".to_owned()),
        ("valet/deployment".to_owned(), "other_key".to_owned()),
        (format!("u/../{}", key()), "other_key".to_owned()),
        (format!("/{}", key()), "other_key".to_owned()),
        (String::new(), "other_key".to_owned()),
        ("x".repeat(4000), "other_key".to_owned()),
    ] {
        let wanted = [wanted];
        assert_eq!(summaries(&decoded(&records(&[record("ObjectCreated:Put", BUCKET, &text)]))), wanted, "{text}");
        assert_eq!(summaries(&decoded(&event_bridge("Object Created", BUCKET, &text))), wanted, "{text}");
    }
}

#[test]
fn keys_are_decoded_as_their_form_encodes_them() {
    let summaries_of_record = |key: &str| summaries(&decoded(&records(&[record("ObjectCreated:Put", BUCKET, key)])));
    let all_escaped: String = key().bytes().map(|byte| format!("%{byte:02x}")).collect();
    assert_eq!(summaries_of_record(&all_escaped), [key()]);
    for text in
        [format!("{}+", key()), format!("{}%20", key()), format!("{}%", key()), format!("{}%4", key()), format!("%ff{}", key())]
    {
        assert_eq!(summaries_of_record(&text), ["other_key".to_owned()], "{text}");
    }
    let other = ["other_key".to_owned()];
    assert_eq!(
        summaries(&decoded(&event_bridge("Object Created", BUCKET, &escaped(&key())))),
        other,
        "EventBridge does not encode"
    );
    assert_eq!(summaries(&decoded(&r2("PutObject", BUCKET, &escaped(&key())))), other, "nor does R2");
}

#[test]
fn records_that_name_no_upload_are_ignored_with_a_reason() {
    use IgnoredRecord::{Malformed, OtherBucket, OtherEvent, Test};
    let put = || record("ObjectCreated:Put", BUCKET, &key());
    let records_without = |pointer: &str| {
        let mut record = put();
        *record.pointer_mut(pointer).unwrap() = Value::Null;
        records(&[record])
    };
    let four_envelopes = sns(&sns(&sns(&sns(&records(&[put()])))));
    for (body, wanted) in [
        (json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-08-21T10:00:00.000Z", "Bucket": BUCKET }), Test),
        (
            json!({ "Type": "SubscriptionConfirmation", "Message": "You have chosen …", "SubscribeURL": "http://127.0.0.1/" }),
            Test,
        ),
        (sns(&json!({ "Service": "Amazon S3", "Event": "s3:TestEvent" })), Test),
        (records(&[record("ObjectRemoved:Delete", BUCKET, &key())]), OtherEvent),
        (records(&[record("ObjectCreated", BUCKET, &key())]), OtherEvent),
        (event_bridge("Object Deleted", BUCKET, &key()), OtherEvent),
        (r2("DeleteObject", BUCKET, &key()), OtherEvent),
        (records(&[record("ObjectCreated:Put", "photos2", &key())]), OtherBucket),
        (event_bridge("Object Created", "", &key()), OtherBucket),
        (r2("PutObject", "Photos", &key()), OtherBucket),
        (records_without("/eventName"), Malformed),
        (records_without("/s3"), Malformed),
        (records_without("/s3/bucket/name"), Malformed),
        (records_without("/s3/object/key"), Malformed),
        (records(&[]), Malformed),
        (four_envelopes, Malformed),
        (json!({ "Type": "Notification", "Message": "hello" }), Malformed),
        (json!([put()]), Malformed),
        (json!({}), Malformed),
        (json!(null), Malformed),
        (json!("Records"), Malformed),
    ] {
        assert_eq!(decoded(&body), [EventRecord::Ignored(wanted)], "{body}");
    }
    for text in ["", "{", "<xml/>", "{\"Records\":[{]}", "\u{0}"] {
        assert_eq!(decode_notification(text.as_bytes(), BUCKET), [EventRecord::Ignored(Malformed)], "{text}");
    }
    assert_eq!(decode_notification(&[0xff, 0xfe], BUCKET), [EventRecord::Ignored(Malformed)]);
}

#[test]
fn ignored_records_do_not_affect_the_others() {
    let mixed = [json!(7), record("ObjectCreated:Put", "other", &key()), record("ObjectCreated:Put", BUCKET, &key())];
    let wanted = ["malformed".to_owned(), "other_bucket".to_owned(), key()];
    assert_eq!(summaries(&decoded(&records(&mixed))), wanted);
}

#[test]
fn notifications_are_limited() {
    let many = vec![json!({}); 5000];
    assert_eq!(decoded(&records(&many)).len(), 1000, "records");
    let mut large = records(&[record("ObjectCreated:Put", BUCKET, &key())]);
    large["x"] = "x".repeat(MAX_NOTIFICATION_BYTES).into();
    assert_eq!(decoded(&large), [EventRecord::Ignored(IgnoredRecord::Malformed)], "bytes");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(decode_notification(deep.as_bytes(), BUCKET), [EventRecord::Ignored(IgnoredRecord::Malformed)], "depth");
}

/// Generates documents with the members and texts of notifications, and others.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        Just(Value::from(key())),
        Just(Value::from(BUCKET)),
        Just(Value::from("ObjectCreated:Put")),
    ];
    let name = prop_oneof![
        "(Records|eventName|s3|bucket|object|name|key|Type|Message|detail|detail-type|action|data|specversion|Event|eventTime)",
        "\\PC{0,8}"
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((name.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn random_bytes_are_malformed(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(decode_notification(&bytes, BUCKET), [EventRecord::Ignored(IgnoredRecord::Malformed)]);
    }

    #[test]
    fn written_objects_of_any_document_have_keys_that_name_their_owners(body in any_json()) {
        let records = decoded(&body);
        prop_assert!(!records.is_empty());
        for record in records {
            if let EventRecord::Written(object) = record {
                prop_assert_eq!(object.upload_key.owner(), Some(object.owner));
            }
        }
    }

    #[test]
    fn texts_that_are_no_upload_keys_are_other_keys(text in "\\PC{0,100}|[%+0-9a-f]{0,20}") {
        let records = summaries(&decoded(&records(&[record("ObjectCreated:Put", BUCKET, &text)])));
        prop_assert_eq!(records, ["other_key".to_owned()]);
    }
}
