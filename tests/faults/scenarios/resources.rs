//! F6, F23, F25: exhausted connections, exhausted space, expired certificates.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::{
    super::{
        cluster::{Cluster, Options},
        program::Settings,
        proxy::{Fault, Proxy},
        s3_faults::{Misbehavior, Operation, Rule, S3Faults, s3_address},
        single_server::ANSWERED_WITHIN,
        tls::{self, TlsFront},
        workload::users::password_of,
    },
    Scenario, fault_duration,
    probe::Probe,
};

/// F6: a pool of ten connections to MongoDB for five hundred clients of one server. Some calls are answered 503 or 504; each is
/// answered in time.
#[tokio::test(flavor = "multi_thread")]
async fn f6_ten_connections_serve_five_hundred_clients() {
    let change = |_, settings: Settings| {
        let (_, uri) = settings.0.iter().find(|(name, _)| *name == "MONGODB_URI").unwrap().clone();
        settings.with("MONGODB_URI", &format!("{uri}&maxPoolSize=10"))
    };
    let mut scenario = Scenario::start(Options { servers: 1, change: Box::new(change), ..Options::default() }, 20).await;
    let base = scenario.cluster.servers[0].base();
    let http = reqwest::Client::new();
    let email = format!("client-{}@example.com", uuid::Uuid::new_v4().simple());
    let body = json!({ "email": email, "password": password_of(&email) });
    let session = http.post(format!("{base}/api/auth/signup")).json(&body).send().await.unwrap();
    let session: serde_json::Value = session.json().await.unwrap();
    let token = session["token"].as_str().unwrap().to_owned();
    let until = Instant::now() + fault_duration(5, 60);
    let clients = (0..500).map(|_| {
        let (http, token, url) = (http.clone(), token.clone(), format!("{base}/api/images/gallery"));
        async move {
            let (mut answered, mut refused) = (0, 0);
            while Instant::now() < until {
                let began = Instant::now();
                let answer = http.request(Method::GET, &url).bearer_auth(&token).timeout(Duration::from_secs(60)).send().await;
                let status = answer.expect("an answer").status().as_u16();
                assert!(matches!(status, 200 | 503 | 504), "{status}");
                assert!(began.elapsed() < ANSWERED_WITHIN, "{:?}", began.elapsed());
                if status == 200 { answered += 1 } else { refused += 1 }
            }
            (answered, refused)
        }
    });
    let counts = futures_util::future::join_all(clients).await;
    let (answered, refused) = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    println!("F6: {answered} answered, {refused} refused");
    assert!(answered > 0);
    scenario.assert_recovered("F6").await;
    scenario.end().await;
}

/// F23 of the store: it has no space for uploads or copies.
#[tokio::test(flavor = "multi_thread")]
async fn f23_store_without_space_loses_nothing() {
    let (faults, clients) = (S3Faults::of_this_run().await, S3Faults::of_this_run().await);
    let endpoint = faults.endpoint();
    let change = move |_, settings: Settings| settings.with("S3_ENDPOINT", &endpoint).with("S3_FINALIZE", "copy");
    let options = Options { servers: 2, s3: Some(clients.endpoint()), change: Box::new(change), ..Options::default() };
    let mut scenario = Scenario::start(options, 30).await;
    let full = || Misbehavior::error(507, "XMinioStorageFull");
    clients.add(Rule::new(&[Operation::PutObject, Operation::UploadPart], full()).share(40));
    faults.add(Rule::new(&[Operation::CopyObject, Operation::CompleteMultipart, Operation::CreateMultipart], full()));
    scenario.run_until_unavailable("F23, the store", fault_duration(5, 60)).await;
    clients.heal();
    faults.heal();
    scenario.assert_recovered("F23, the store").await;
    scenario.end().await;
}

/// F25: the store's certificate expires while the server runs, and is replaced. The server sends nothing over a connection whose
/// certificate is not valid.
#[tokio::test(flavor = "multi_thread")]
async fn f25_expired_certificate_is_an_outage_until_it_is_renewed() {
    let front = TlsFront::start(s3_address().await).await;
    let proxy = Proxy::start(front.address()).await;
    let endpoint = format!("https://localhost:{}", proxy.address().port());
    let change = move |_, settings: Settings| {
        settings
            .with("S3_ENDPOINT", &endpoint)
            .with("SSL_CERT_FILE", tls::authority().to_str().unwrap())
            .with("UPLOAD_URL_TTL", "60s")
            .with("UPLOAD_TTL", "120s")
            .with("MULTIPART_TTL", "120s")
    };
    let cluster = Cluster::start(Options { servers: 1, change: Box::new(change), ..Options::default() }).await;
    let mut probe = Probe::start(&cluster).await;
    probe.upload().await;
    front.set_expired(true);
    // Connections from before the expiry would last: the server has to open new ones.
    proxy.set(Fault::Reset);
    // Time for the proxy to reset the open connections.
    tokio::time::sleep(Duration::from_millis(200)).await;
    proxy.heal();
    let id = probe.send_upload().await;
    probe.confirm(&id).await.assert_outage("expired");
    front.set_expired(false);
    let confirmed = probe.confirm(&id).await;
    assert_eq!(confirmed.status, 200, "{confirmed:?}");
}
