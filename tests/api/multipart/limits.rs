//! Covers the limits of multipart uploads: invalid members, and the largest file.

use super::{Answer, Document, MIB, TestApp, Value, declaration, doc, json, sha256};

#[tokio::test]
async fn invalid_declarations_are_rejected_with_the_member() {
    let app = TestApp::start_with(|config| {
        config.uploads.multipart_max_bytes = 60_000 << 20;
        config.uploads.quota_bytes = 1 << 40;
    })
    .await;
    let ada = app.user().await;
    let valid = declaration(&[0; 100], "none");
    // Returns status, code and field for a declaration with another value in a member.
    let declare_with = async |member: &str, value: Value| {
        let mut body = valid.clone();
        body[member] = value;
        let answer = ada.post("/api/images/multipart", body).await;
        (answer.status, answer.code().to_owned(), answer.json["errors"][0]["field"].as_str().unwrap_or_default().to_owned())
    };
    let cases = [
        ("partSize", "invalid_part_size", vec![json!(5 * MIB - 1), json!(0), json!(-1), json!((5_u64 << 30) + 1), json!(1e30)]),
        ("size", "invalid_size", vec![json!(0), json!(-1)]),
        ("size", "file_too_large", vec![json!((60_000_u64 << 20) + 1), json!(1e30)]),
        ("contentType", "type_not_allowed", vec![json!("image/svg+xml")]),
        ("fileName", "invalid_file_name", vec![json!("")]),
        ("caption", "invalid_caption", vec![json!("x".repeat(1001))]),
    ];
    for (member, code, values) in cases {
        for value in values {
            assert_eq!(declare_with(member, value.clone()).await, (422, code.to_owned(), member.to_owned()), "{member}: {value}");
        }
    }
    // 10000 parts of 5 MiB, and one more byte.
    assert_eq!(declare_with("size", json!((50_000_u64 << 20) + 1)).await.1, "invalid_part_size");
    for (member, value) in [
        ("partSize", json!("5")),
        ("partSize", Value::Null),
        ("partChecksums", json!("md5")),
        ("sha256", json!(sha256(b"x"))),
        ("uploadId", json!("x")),
    ] {
        assert_eq!(declare_with(member, value).await.0, 400, "{member}");
    }
    assert_eq!(app.db.collection::<Document>("images").count_documents(doc! {}).await.unwrap(), 0);
    assert!(app.bucket_uploads().await.is_empty());
}

#[tokio::test]
async fn invalid_part_numbers_and_checksums_are_rejected_with_the_member() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let without_checksums = ada.open(declaration(&[0; 100], "none")).await;
    let fields = |answer: &Answer| -> Vec<String> {
        let errors = answer.json["errors"].as_array().unwrap();
        errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    };
    let too_many = (1..=1001).map(|n| json!({ "partNumber": n })).collect::<Vec<_>>();
    for parts in [json!([]), json!(too_many)] {
        let answer = ada.sign(without_checksums.id(), parts).await;
        assert_eq!((answer.problem(), fields(&answer)), ((422, "invalid_parts"), vec!["parts".to_owned()]));
    }
    for number in [json!(0), json!(-1), json!(2), json!(10_001), json!(1e30), json!(4_294_967_297_u64)] {
        let answer = ada.sign(without_checksums.id(), json!([{ "partNumber": 1 }, { "partNumber": number }])).await;
        assert_eq!((answer.problem(), fields(&answer)), ((422, "invalid_parts"), vec!["parts[1].partNumber".to_owned()]));
    }
    let answer = ada.sign(without_checksums.id(), json!([{ "partNumber": 1, "sha256": sha256(b"x") }])).await;
    assert_eq!((answer.problem(), fields(&answer)), ((422, "invalid_sha256"), vec!["parts[0].sha256".to_owned()]));
    let with_checksums = ada.open(declaration(&[0; 100], "sha256")).await;
    for part in [json!({ "partNumber": 1 }), json!({ "partNumber": 1, "sha256": "AAAA" })] {
        let answer = ada.sign(with_checksums.id(), json!([part])).await;
        assert_eq!((answer.problem(), fields(&answer)), ((422, "invalid_sha256"), vec!["parts[0].sha256".to_owned()]));
    }
    for part in [json!({}), json!({ "partNumber": "1" }), json!({ "partNumber": 1, "size": 5 }), json!(1)] {
        assert_eq!(ada.sign(without_checksums.id(), json!([part])).await.status, 400);
    }
}

#[tokio::test]
async fn five_gibibytes_fit_into_the_limits_of_s3() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    let body = |size: u64| json!({ "fileName": "huge.png", "contentType": "image/png", "size": size });
    assert_eq!(ada.post("/api/images/multipart", body((5 << 30) + 1)).await.problem(), (422, "file_too_large"));
    let ticket = ada.open(body((5 << 30) - 3)).await;
    let (part_size, count) = (ticket.json["partSize"].as_u64().unwrap(), ticket.json["partCount"].as_u64().unwrap());
    assert!(part_size >= 8 << 20 && count <= 10_000 && part_size * count == 5 << 30, "{ticket:?}");
    let numbers: Vec<_> = (1..=count).map(|n| json!({ "partNumber": n })).collect();
    let signed = ada.sign(ticket.id(), json!(numbers)).await;
    assert_eq!(signed.json["parts"].as_array().unwrap().len() as u64, count);
    let last = &signed.json["parts"].as_array().unwrap().last().unwrap()["request"];
    let rest = usize::try_from(part_size - 3).unwrap();
    assert!(TestApp::is_signature_rejection(app.put(last, vec![7; rest + 1]).await));
    assert_eq!(app.put(last, vec![7; rest]).await, 200, "the lengths add up to the declared size");
    let answer = ada.confirm(ticket.id()).await;
    assert_eq!(answer.problem(), (409, "parts_missing"));
    assert!(answer.json["detail"].as_str().unwrap().contains(&format!(": 1-{}.", count - 1)), "{answer:?}");
    // The grace period is that of a part, not of the whole file: the sweeper examines the upload 15 minutes after its URLs expire.
    let document = app.db_image(ticket.id()).await.unwrap();
    let (due, dies) = (document.get_datetime("due").unwrap(), document.get_datetime("urlsDieAt").unwrap());
    assert_eq!(due.timestamp_millis() - dies.timestamp_millis(), 900_000);
    let another = ada.post("/api/images/multipart", body(5 << 30)).await;
    assert_eq!(another.status, 201, "the quota of 10 GiB suffices for two");
    assert_eq!(ada.post("/api/images/multipart", body(5 << 30)).await.problem(), (409, "quota_exceeded"));
    for _ in 0..2 {
        assert_eq!(ada.delete(&format!("/api/images/{}", another.id())).await.status, 204);
        assert_eq!(ada.usage().await["bytes"], (5_u64 << 30) - 3, "released at once, and only once, because no URL was issued");
    }
    for _ in 0..2 {
        assert_eq!(ada.delete(&format!("/api/images/{}", ticket.id())).await.status, 204);
        assert_eq!(
            (&ada.usage().await["bytes"], &ada.usage().await["pending"]),
            (&json!((5_u64 << 30) - 3), &json!(0)),
            "URLs can still write the bytes"
        );
    }
    assert_eq!(app.bucket_uploads().await.len(), 0);
    app.sweep_after_url_expiry().await;
    assert_eq!(ada.usage().await["bytes"], 0);
}
