//! Benchmark of presigning, compared with aws-sdk-s3, rusty-s3 and a floor: `cargo bench --bench signer`.
//!
//! The floor is the work that no signer can avoid: one SHA-256 of the same canonical request, one HMAC with the day's key,
//! and writing the same URL. After criterion's figures come the ratios, each the median of five alternating runs, in a table with
//! their bounds and the baseline, like the table of the benchmark `load`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

#[allow(dead_code)]
#[path = "load/report.rs"]
mod report;

use std::{
    hint::black_box,
    time::{Duration, Instant, SystemTime},
};

use aws_lc_rs::{digest, hmac};
use aws_sdk_s3::{
    config::{BehaviorVersion, Region},
    presigning::PresigningConfig,
};
use criterion::Criterion;
use rusty_s3::{Bucket, S3Action, UrlStyle, actions};
use secrecy::SecretString;
use time::OffsetDateTime;
use valet::signer::{AddressingStyle, BucketLocation, Credentials, PresignRequest, Signer};

use self::report::{Bound, Report};

const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const REGION: &str = "eu-central-1";
const BUCKET: &str = "valet-images";
const ENDPOINT: &str = "https://s3.eu-central-1.amazonaws.com";
/// Object key.
const KEY: &str = "u/01938f3e-7b1a-7c3d-9e5f-0a1b2c3d4e5f/01938f3f-1c2d-7e4f-8a9b-c0d1e2f3a4b5";
/// Override of a response's `Cache-Control`.
const CACHE: &str = "private, max-age=300, immutable";
const DIGEST: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
const UPLOAD_ID: &str = "VXBsb2FkIElEIGZvciA2aWWpbmcncyBteS1tb3ZpZS5tMnRzIHVwbG9hZA";
/// Lifetime of the URLs.
const TTL: Duration = Duration::from_secs(300);
/// Number of alternating runs whose median is a ratio.
const RUNS: usize = 5;
/// Number of calls in one run, at most.
const PER_RUN: u32 = 20_000;

/// GET with two overrides.
const GET: PresignRequest<'_> = PresignRequest {
    method: "GET",
    key: KEY,
    headers: &[],
    query: &[("response-cache-control", CACHE), ("response-content-type", "image/jpeg")],
};
/// PUT with four signed headers.
const PUT: PresignRequest<'_> = PresignRequest {
    method: "PUT",
    key: KEY,
    headers: &[
        ("content-length", "4194304"),
        ("content-type", "image/jpeg"),
        ("if-none-match", "*"),
        ("x-amz-checksum-sha256", DIGEST),
    ],
    query: &[],
};
/// PUT of a part.
const PART: PresignRequest<'_> = PresignRequest {
    method: "PUT",
    key: KEY,
    headers: &[("content-length", "8388608")],
    query: &[("partNumber", "17"), ("uploadId", UPLOAD_ID)],
};

/// The work that no signer can avoid, with given inputs.
struct Floor {
    /// Canonical request.
    canonical: String,
    /// String to sign.
    to_sign: Vec<u8>,
    url: String,
    /// Signing key of the day.
    key: hmac::Key,
}

impl Floor {
    /// Prepares the inputs for a URL of the signer.
    fn of(request: &PresignRequest<'_>, url: &str) -> Self {
        let (unsigned, signature) = url.split_once("&X-Amz-Signature=").unwrap();
        let (path, query) = unsigned.split_once("amazonaws.com").unwrap().1.split_once('?').unwrap();
        let host = format!("{BUCKET}.s3.{REGION}.amazonaws.com");
        let mut headers: Vec<_> = request.headers.iter().copied().chain([("host", host.as_str())]).collect();
        headers.sort_unstable();
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
        let canonical = format!("{}\n{path}\n{query}\n{lines}\n{}\nUNSIGNED-PAYLOAD", request.method, names.join(";"));
        let mut key = format!("AWS4{SECRET}").into_bytes();
        for step in ["20261122", REGION, "s3", "aws4_request"] {
            key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), step.as_bytes()).as_ref().to_vec();
        }
        let digest = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let to_sign = format!("AWS4-HMAC-SHA256\n20261122T100000Z\n20261122/{REGION}/s3/aws4_request\n{digest}").into_bytes();
        let floor = Self { canonical, to_sign, url: url.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, &key) };
        assert_eq!(hex(hmac::sign(&floor.key, &floor.to_sign).as_ref()), signature, "the floor is of this URL");
        floor
    }

    /// Does the work once; returns the URL.
    fn run(&self) -> String {
        black_box(digest::digest(&digest::SHA256, black_box(self.canonical.as_bytes())));
        black_box(hmac::sign(&self.key, black_box(&self.to_sign)));
        black_box(&self.url).clone()
    }
}

/// Encodes bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name and function of one way to make a URL.
type Way<'a> = (&'static str, Box<dyn Fn() + 'a>);

/// The compared signers, all for one bucket and with the same keys.
struct Signers {
    /// Time of all signatures.
    at: OffsetDateTime,
    valet: Signer,
    sdk: aws_sdk_s3::Client,
    /// Start and lifetime of the SDK's URLs.
    presigning: PresigningConfig,
    runtime: tokio::runtime::Runtime,
    bucket: Bucket,
    rusty: rusty_s3::Credentials,
}

impl Signers {
    /// Creates the signers, with a fixed time.
    fn new() -> Self {
        let at = OffsetDateTime::from_unix_timestamp(1_795_341_600).unwrap();
        assert_eq!(at.to_string(), "2026-11-22 10:00:00.0 +00:00:00");
        let credentials = Credentials {
            access_key_id: KEY_ID.to_owned(),
            secret_access_key: SecretString::from(SECRET),
            session_token: None,
            expires_at: None,
        };
        let location =
            BucketLocation::endpoint(&ENDPOINT.parse().unwrap(), &BUCKET.parse().unwrap(), AddressingStyle::VirtualHost);
        let keys = aws_credential_types::Credentials::new(KEY_ID, SECRET, None, None, "bench");
        let sdk = aws_sdk_s3::Config::builder().behavior_version(BehaviorVersion::latest()).region(Region::new(REGION));
        Self {
            at,
            valet: Signer::new(location, REGION, credentials),
            sdk: aws_sdk_s3::Client::from_conf(sdk.credentials_provider(keys).build()),
            presigning: PresigningConfig::builder().start_time(SystemTime::from(at)).expires_in(TTL).build().unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap(),
            bucket: Bucket::new(ENDPOINT.parse().unwrap(), UrlStyle::VirtualHost, BUCKET, REGION).unwrap(),
            rusty: rusty_s3::Credentials::new(KEY_ID, SECRET),
        }
    }

    /// Returns the floor and Valet's signer.
    fn floor_and_valet(&self, request: &'static PresignRequest<'static>) -> [Way<'_>; 2] {
        let floor = Floor::of(request, &self.valet.presign(request, self.at, TTL).unwrap().url);
        let valet = move || drop(black_box(self.valet.presign(black_box(request), self.at, TTL)));
        [("floor", Box::new(move || drop(black_box(floor.run())))), ("valet", Box::new(valet))]
    }

    /// Returns the floor and Valet's signer for one of many URLs of a page, written into their buffer.
    fn floor_and_series(&self) -> [Way<'_>; 2] {
        let floor = Floor::of(&GET, &self.valet.presign(&GET, self.at, TTL).unwrap().url);
        let series = self.valet.series(&GET, self.at, TTL).unwrap();
        let page = std::cell::RefCell::new(Vec::with_capacity(64 * 1024));
        let push = move || {
            let mut page = page.borrow_mut();
            page.clear();
            series.push_url(black_box(KEY), &mut page);
            black_box(&page);
        };
        [("floor", Box::new(move || drop(black_box(floor.run())))), ("valet", Box::new(push))]
    }

    /// Returns all ways to make a URL: the floor, Valet, rusty-s3 and the SDK.
    fn ways<'a>(&'a self, request: &'static PresignRequest<'static>, rusty: impl Fn() + 'a, sdk: impl Fn() + 'a) -> Vec<Way<'a>> {
        let others: [Way<'a>; 2] = [("rusty-s3", Box::new(rusty)), ("aws-sdk-s3", Box::new(sdk))];
        self.floor_and_valet(request).into_iter().chain(others).collect()
    }

    /// Returns all ways to sign [`GET`].
    fn get(&self) -> Vec<Way<'_>> {
        let rusty = || {
            let mut action = actions::GetObject::new(&self.bucket, Some(&self.rusty), KEY);
            action.query_mut().insert("response-cache-control", CACHE);
            action.query_mut().insert("response-content-type", "image/jpeg");
            drop(black_box(action.sign(TTL)));
        };
        let sdk = || {
            let get = self.sdk.get_object().bucket(BUCKET).key(KEY).response_cache_control(CACHE);
            let get = get.response_content_type("image/jpeg");
            drop(black_box(self.runtime.block_on(get.presigned(self.presigning.clone())).unwrap()));
        };
        self.ways(&GET, rusty, sdk)
    }

    /// Returns all ways to sign [`PUT`].
    fn put(&self) -> Vec<Way<'_>> {
        let rusty = || {
            let mut action = actions::PutObject::new(&self.bucket, Some(&self.rusty), KEY);
            PUT.headers.iter().for_each(|(name, value)| action.headers_mut().insert(*name, *value));
            drop(black_box(action.sign(TTL)));
        };
        let sdk = || {
            let put = self.sdk.put_object().bucket(BUCKET).key(KEY).content_length(4_194_304).content_type("image/jpeg");
            let put = put.if_none_match("*").checksum_sha256(DIGEST);
            drop(black_box(self.runtime.block_on(put.presigned(self.presigning.clone())).unwrap()));
        };
        self.ways(&PUT, rusty, sdk)
    }

    /// Returns all ways to sign [`PART`].
    fn part(&self) -> Vec<Way<'_>> {
        let rusty = || {
            let mut action = actions::UploadPart::new(&self.bucket, Some(&self.rusty), KEY, 17, UPLOAD_ID);
            action.headers_mut().insert("content-length", "8388608");
            drop(black_box(action.sign(TTL)));
        };
        let sdk = || {
            let part = self.sdk.upload_part().bucket(BUCKET).key(KEY).part_number(17).upload_id(UPLOAD_ID);
            let part = part.content_length(8_388_608);
            drop(black_box(self.runtime.block_on(part.presigned(self.presigning.clone())).unwrap()));
        };
        self.ways(&PART, rusty, sdk)
    }
}

/// Measures the medians of alternating runs; `ways` are in the order in which [`Signers::ways`] returns them.
fn measure(report: &mut Report, call: &str, max_ratio_to_floor: f64, ways: &[Way<'_>]) {
    let rounds: Vec<Vec<f64>> = (0..RUNS).map(|_| ways.iter().map(|(_, way)| nanoseconds(way)).collect()).collect();
    let median = |ratio: &dyn Fn(&Vec<f64>) -> f64| {
        let mut all: Vec<_> = rounds.iter().map(ratio).collect();
        all.sort_by(f64::total_cmp);
        all[RUNS / 2]
    };
    println!("{call}: valet {:.0} ns; rusty-s3 {:.1} times valet's", median(&|run| run[1]), median(&|run| run[2] / run[1]));
    report.ratio(&format!("presigned {call}, to its floor"), median(&|run| run[1] / run[0]), Bound::AtMost(max_ratio_to_floor));
    report.ratio(&format!("aws-sdk-s3's presigner, to Valet's: {call}"), median(&|run| run[3] / run[1]), Bound::AtLeast(20.0));
}

fn main() {
    let signers = Signers::new();
    let calls = [
        ("GET with two overrides", 1.3, signers.get()),
        ("PUT with four signed headers", 2.0, signers.put()),
        ("UploadPart", 2.0, signers.part()),
    ];
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
        .without_plots()
        .configure_from_args();
    for (call, _, ways) in &calls {
        let mut group = criterion.benchmark_group(*call);
        for (name, way) in ways {
            group.bench_function(*name, |bencher| bencher.iter(way));
        }
    }
    criterion.final_summary();
    println!("\nRatios, medians of {RUNS} alternating runs");
    let mut report = Report::default();
    for (call, max_ratio_to_floor, ways) in &calls {
        measure(&mut report, call, *max_ratio_to_floor, ways);
    }
    let rounds: Vec<_> = (0..RUNS).map(|_| signers.floor_and_series().map(|(_, way)| nanoseconds(&way))).collect();
    let mut ratios: Vec<_> = rounds.iter().map(|[floor, series]| series / floor).collect();
    ratios.sort_by(f64::total_cmp);
    report.ratio("presigned GET of a page, to its floor", ratios[RUNS / 2], Bound::AtMost(1.3));
    report.end();
}

/// Returns the mean time of a call in nanoseconds, over a run of at most 100 ms.
fn nanoseconds(way: &dyn Fn()) -> f64 {
    let began = Instant::now();
    let mut done = 0;
    while done < PER_RUN && began.elapsed() < Duration::from_millis(100) {
        for _ in 0..100 {
            way();
        }
        done += 100;
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(done)
}
