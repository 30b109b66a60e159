//! Benchmark of a batch of 100, compared with single calls.

use std::{net::SocketAddr, time::Instant};

use serde_json::{Value, json};

use super::{
    RUNS,
    client::Connection,
    data::{User, declaration, text, unique_png},
    median,
    report::{Bound, Report},
    servers::Server,
};

/// Function that returns method and path of the call for one image.
type Single = fn(&str) -> (&'static str, String);

/// Number of items in a batch.
const MANY: usize = 100;
/// Number of single calls whose mean time is used.
const SINGLES: usize = 10;

/// Opens this many uploads in batches and PUTs their bytes; returns their ids.
pub async fn send_uploads(valet: &Server, s3: SocketAddr, user: &User, count: usize) -> Vec<String> {
    let (mut api, mut bucket) = (Connection::open(valet.address).await, Connection::open(s3).await);
    let mut ids = Vec::new();
    let files: Vec<_> = (0..count).map(|_| unique_png()).collect();
    for files in files.chunks(MANY) {
        let items: Vec<_> = files.iter().map(|bytes| declaration(bytes)).collect();
        let body = json!({ "items": items });
        let answer = api.expect(&user.request("POST", "/api/images/upload/batch", Some(&body)), 200).await;
        for (result, bytes) in answer["results"].as_array().unwrap().iter().zip(files) {
            put(&mut bucket, s3, &result["ticket"]["upload"], bytes).await;
            ids.push(text(&result["ticket"]["id"]));
        }
    }
    ids
}

/// Sends a presigned PUT.
async fn put(bucket: &mut Connection, s3: SocketAddr, upload: &Value, bytes: &[u8]) {
    let url = text(&upload["url"]);
    let path = url.strip_prefix(&format!("http://{s3}")).unwrap();
    let mut request = format!("PUT {path} HTTP/1.1\r\nhost: {s3}\r\ncontent-length: {}\r\n", bytes.len());
    for (name, value) in upload["headers"].as_object().unwrap() {
        request += &format!("{name}: {}\r\n", text(value));
    }
    let request = [format!("{request}\r\n").as_bytes(), bytes].concat();
    let (status, body) = bucket.send(&request).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
}

/// Measures the ratio of a batch to a single call for each operation, over one connection with one request at a time.
pub async fn measure(report: &mut Report, valet: &Server, s3: SocketAddr) {
    // For each of the five operations, the seconds of a single call and of a batch, by run.
    let mut times = [(); 5].map(|()| (Vec::new(), Vec::new()));
    for _ in 0..RUNS {
        let user = User::sign_up(valet.address).await;
        let mut api = Connection::open(valet.address).await;
        let body_with = |ids: &[String]| Some(json!({ "ids": ids }));

        let singles = (0..SINGLES).map(|_| user.request("POST", "/api/images/upload", Some(&declaration(&unique_png()))));
        let one = mean(&mut api, singles.collect(), 201).await;
        let items: Vec<_> = (0..MANY).map(|_| declaration(&unique_png())).collect();
        let body = json!({ "items": items });
        let many = mean(&mut api, vec![user.request("POST", "/api/images/upload/batch", Some(&body))], 200).await;
        times[0].0.push(one);
        times[0].1.push(many);

        let ids = send_uploads(valet, s3, &user, SINGLES + MANY).await;
        let (few, rest) = ids.split_at(SINGLES);
        let steps: [(_, Single, _, _); 4] = [
            ("renew", |id| ("POST", format!("/api/images/{id}/renew")), "/api/images/renew", 200),
            ("confirm", |id| ("POST", format!("/api/images/{id}/confirm")), "/api/images/confirm", 200),
            ("read", |id| ("GET", format!("/api/images/{id}")), "/api/images/read", 200),
            ("delete", |id| ("DELETE", format!("/api/images/{id}")), "/api/images/delete", 204),
        ];
        // The first element of `times` belongs to upload.
        for (at, (_, single, batch, status)) in steps.into_iter().enumerate() {
            let call = |id: &String| {
                let (method, path) = single(id);
                user.request(method, &path, None)
            };
            times[at + 1].0.push(mean(&mut api, few.iter().map(call).collect(), status).await);
            times[at + 1].1.push(mean(&mut api, vec![user.request("POST", batch, body_with(rest).as_ref())], 200).await);
        }
    }
    for (name, (one, many)) in ["upload", "renew", "confirm", "read", "delete"].into_iter().zip(times) {
        let ratio = median(many.iter().zip(&one).map(|(many, one)| many / one).collect());
        println!("batch of {MANY}: {name:8} {:6.2} ms, one {:5.2} ms", median(many) * 1e3, median(one) * 1e3);
        report.ratio(&format!("batch of {MANY}, to one: {name}"), ratio, Bound::Low);
    }
}

/// Returns the mean time of the requests in seconds.
async fn mean(api: &mut Connection, requests: Vec<Vec<u8>>, expected_status: u16) -> f64 {
    let began = Instant::now();
    for request in &requests {
        let answer = api.expect(request, expected_status).await;
        for result in answer["results"].as_array().into_iter().flatten() {
            assert!(result["status"].as_u64().unwrap() < 300, "{result}");
        }
    }
    began.elapsed().as_secs_f64() / requests.len() as f64
}
