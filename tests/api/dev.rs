//! Covers `valet dev` as a process: it starts without any configuration, and leaves no process behind.
//!
//! Commands: valet dev, valet webhook.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use secrecy::ExposeSecret;
use serde_json::Value;

use super::{
    app::{TestApp, unique_png},
    dev_mongod::{runs, within},
    process_client::{Client, Ended, Process, Settings},
};

/// Path of a folder or file that is removed with its test.
struct Folder(PathBuf);

impl Folder {
    /// Returns the path of a folder that does not exist.
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("valet-dev-{}", uuid::Uuid::new_v4().simple())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A running `valet dev`, with the addresses in its banner.
struct Dev {
    process: Process,
    client: Client,
    /// URL of Swagger UI.
    docs: String,
    /// Endpoint of the S3 server.
    s3: String,
    /// Process id of mongod, if it is a child of `valet dev`.
    mongod: Option<u32>,
}

/// Starts `valet dev` on these addresses, with its data in this folder.
fn start(data: &Path, bind: &str, s3_bind: &str, env: &[(&str, &str)]) -> Process {
    Process::start(&["dev", "--bind", bind, "--s3-bind", s3_bind, "--data-dir", data.to_str().unwrap()], env)
}

impl Dev {
    /// Starts `valet dev` on free ports, and reads addresses and keys from its banner.
    async fn start(data: &Path, env: &[(&str, &str)]) -> Self {
        let process = start(data, "127.0.0.1:0", "127.0.0.1:0", env);
        let banner = process.wait_for(|process| Some(process.out()).filter(|out| out.contains("Ctrl-C stops all of it."))).await;
        let value_of = |label: &str| {
            let line = banner.lines().find_map(|line| line.trim_start().strip_prefix(label));
            line.unwrap_or_else(|| panic!("{label} in {banner}")).trim().to_owned()
        };
        let mongod =
            value_of("MongoDB").strip_prefix("mongod child ").map(|rest| rest.split(',').next().unwrap().parse().unwrap());
        let s3 = value_of("S3 ").split(' ').next().unwrap().to_owned();
        let api = value_of("API");
        let base = api.strip_suffix("/api").unwrap();
        assert!(!base.ends_with(":0") && !s3.ends_with(":0"), "the real ports: {banner}");
        assert!(banner.contains(data.to_str().unwrap()), "{banner}");
        Self { client: Client::at(base), docs: value_of("Swagger UI"), s3, mongod, process }
    }

    /// Sends a signal, and asserts that the process exits successfully and its mongod has ended.
    async fn stop(self, signal: &str) {
        self.process.signal(signal);
        let Ended { status, err, .. } = self.process.wait_for_end(Duration::from_secs(30)).await;
        assert!(status.success(), "{status}: {err}");
        assert!(!runs(self.mongod.unwrap()), "mongod still runs");
    }
}

/// Returns the bytes of the only image in the client's gallery, which has this id.
async fn download(client: &Client, id: &Value) -> Vec<u8> {
    let (status, gallery) = client.get("/api/images/gallery").await;
    assert_eq!(status, 200, "{gallery}");
    assert_eq!((&gallery["images"][0]["id"], gallery["images"].as_array().unwrap().len()), (id, 1));
    client.fetch(&gallery["images"][0]["url"]).await
}

#[tokio::test]
async fn images_survive_every_kind_of_restart() {
    let folder = Folder::new();
    let bytes = unique_png();

    let mut dev = Dev::start(&folder.0, &[]).await;
    assert_eq!(dev.client.http.get(&dev.docs).send().await.unwrap().status(), 200);
    assert_eq!(dev.client.get("/readyz").await.0, 200);
    dev.client.sign_in("signup", "ada@example.com").await;
    let token = dev.client.token.clone();
    let (image, urls) = dev.client.upload(&bytes).await;
    assert!(urls.iter().all(|url| url.starts_with(&dev.s3)), "{urls:?}");
    let unsigned = urls[0].split('?').next().unwrap();
    assert_eq!(dev.client.http.get(unsigned).send().await.unwrap().status(), 403, "the bucket is private");
    dev.stop("-INT").await;

    let mut dev = Dev::start(&folder.0, &[]).await;
    dev.client.token = token;
    assert!(download(&dev.client, &image["id"]).await == bytes, "the token is still valid, and the image exists");
    dev.client.sign_in("login", "ada@example.com").await;
    assert_eq!(dev.client.get("/api/auth/me").await.1["usage"]["bytes"], bytes.len());
    // mongod must end although the killed server cannot stop it.
    let mongod = dev.mongod.unwrap();
    dev.process.signal("-KILL");
    let began = Instant::now();
    let Ended { status, .. } = dev.process.wait_for_end(Duration::from_secs(30)).await;
    assert!(!status.success());
    assert!(within(Duration::from_secs(30), || !runs(mongod)).await, "mongod outlives its server by {:?}", began.elapsed());

    let mut dev = Dev::start(&folder.0, &[]).await;
    dev.client.sign_in("login", "ada@example.com").await;
    assert!(download(&dev.client, &image["id"]).await == bytes, "confirmed images survive a kill");
    dev.stop("-TERM").await;
}

/// `valet dev` runs a worker, whose child process is the program itself.
#[cfg(feature = "worker")]
#[tokio::test]
async fn uploaded_image_gets_previews() {
    let folder = Folder::new();
    let mut dev = Dev::start(&folder.0, &[]).await;
    dev.client.sign_in("signup", "ada@example.com").await;
    let bytes = super::preview_worker::unique_jpeg(1000, 500);
    let (image, _) = dev.client.upload_as("image/jpeg", &bytes).await;
    let path = format!("/api/images/{}", image["id"].as_str().unwrap());
    super::app::eventually("the image has previews", async || dev.client.get(&path).await.1["previews"].is_array()).await;
    let (_, image) = dev.client.get(&path).await;
    assert_eq!((&image["previews"][0]["width"], &image["previews"][1]["width"]), (&Value::from(640), &Value::from(1000)));
    assert!(dev.client.fetch(&image["previewUrl"]).await.starts_with(b"\xff\xd8\xff"));
    dev.stop("-INT").await;
}

/// Starts `valet dev`, which must fail within a minute and leave no process running; returns the single line of its error.
async fn start_error(data: &Path, bind: &str, s3_bind: &str) -> String {
    let Ended { status, out, err } = start(data, bind, s3_bind, &[]).wait_for_end(Duration::from_secs(60)).await;
    assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    let processes = Command::new("ps").args(["-e", "-o", "args="]).output().unwrap();
    let is_running = String::from_utf8_lossy(&processes.stdout).lines().any(|line| line.contains(data.to_str().unwrap()));
    assert!(!is_running, "a process still runs on {}", data.display());
    err
}

#[tokio::test]
async fn port_in_use_is_reported_in_one_line() {
    let folder = Folder::new();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let message = start_error(&folder.0, &address, "127.0.0.1:0").await;
    assert!(message.contains(&address) && message.contains("--bind"), "{message}");
    let message = start_error(&folder.0, "127.0.0.1:0", &address).await;
    assert!(message.contains(&address) && message.contains("--s3-bind"), "{message}");
}

#[tokio::test]
async fn invalid_data_folder_is_reported_in_one_line() {
    let folder = Folder::new();
    std::fs::write(&folder.0, "a file").unwrap();
    for data in [folder.0.clone(), folder.0.join("below")] {
        let message = start_error(&data, "127.0.0.1:0", "127.0.0.1:0").await;
        assert!(message.contains(data.to_str().unwrap()) && message.contains("--data-dir"), "{message}");
    }
    for part in ["mongodb", "s3"] {
        let folder = Folder::new();
        std::fs::create_dir(&folder.0).unwrap();
        std::fs::write(folder.0.join(part), "a file").unwrap();
        let message = start_error(&folder.0, "127.0.0.1:0", "127.0.0.1:0").await;
        assert!(message.contains(folder.0.join(part).to_str().unwrap()), "{message}");
    }
}

#[tokio::test]
async fn servers_named_by_the_environment_are_used() {
    let folder = Folder::new();
    let app = TestApp::start().await;
    let keys = app.config.s3.credentials.as_ref().unwrap();
    let mut dev = Dev::start(
        &folder.0,
        &[
            ("MONGODB_URI", app.config.mongo.uri.expose_secret()),
            ("MONGODB_DATABASE", &app.config.mongo.database),
            ("S3_ENDPOINT", app.config.s3.endpoint.as_deref().unwrap()),
            ("S3_BUCKET", &app.config.s3.bucket),
            ("AWS_ACCESS_KEY_ID", &keys.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", keys.secret_access_key.expose_secret()),
        ],
    )
    .await;
    assert_eq!((dev.mongod, &*dev.s3), (None, app.config.s3.endpoint.as_deref().unwrap()));
    let ada = app.user().await;
    dev.client.sign_in("login", &ada.email).await;
    let (image, _) = dev.client.upload(&unique_png()).await;
    assert_eq!(app.db_state(image["id"].as_str().unwrap()).await, "ready");
    assert_eq!(app.bucket_keys().await.len(), 1);
    assert!(!folder.0.join("mongodb").exists() && !folder.0.join("s3").exists());
}

#[tokio::test]
async fn bucket_whose_database_was_removed_needs_an_explicit_join() {
    let folder = Folder::new();
    Dev::start(&folder.0, &[]).await.stop("-INT").await;
    std::fs::remove_dir_all(folder.0.join("mongodb")).unwrap();
    let Ended { status, err, .. } =
        start(&folder.0, "127.0.0.1:0", "127.0.0.1:0", &[]).wait_for_end(Duration::from_secs(60)).await;
    assert!(!status.success() && err.contains("valet dev --join"), "{err}");
    let data = folder.0.to_str().unwrap();
    let flags = ["dev", "--bind", "127.0.0.1:0", "--s3-bind", "127.0.0.1:0", "--data-dir", data, "--join"];
    let joined = Process::start(&flags, &[]);
    joined.wait_for(|process| Some(()).filter(|()| process.out().contains("Ctrl-C stops all of it."))).await;
    joined.signal("-INT");
    assert!(joined.wait_for_end(Duration::from_secs(30)).await.status.success());
    Dev::start(&folder.0, &[]).await.stop("-INT").await;
}

/// Returns the settings in the file `environment`, which is a list of shell exports.
fn exported(data: &Path) -> Settings {
    use std::os::unix::fs::PermissionsExt;
    let file = data.join("environment");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "only the owner may read the secrets");
    let shell = format!(". '{}' && env -0", file.display());
    let output = Command::new("sh").args(["-c", &shell]).env_clear().output().unwrap().stdout;
    let pairs = String::from_utf8(output).unwrap();
    let pairs = pairs.split('\0').filter_map(|pair| pair.split_once('=')).filter(|(name, _)| *name != "PWD");
    Settings(pairs.map(|(name, value)| (&*name.to_owned().leak(), value.to_owned())).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_commands_work_on_the_running_server_with_its_environment() {
    let folder = Folder::new();
    let mut dev = Dev::start(&folder.0, &[("JWT_PREVIOUS_SECRETS", "it's 0123456789 abcdefghij \"$klmno\"")]).await;
    let settings = exported(&folder.0);
    let quoted = settings.0.iter().find(|(name, _)| *name == "JWT_PREVIOUS_SECRETS");
    assert_eq!(quoted.unwrap().1, "it's 0123456789 abcdefghij \"$klmno\"");
    let run = async |arguments: &[&str]| {
        let Ended { status, out, err } = settings.run(arguments).wait_for_end(Duration::from_secs(60)).await;
        assert!(status.success(), "{arguments:?}: {err}");
        out
    };
    let key = run(&["key", "create", "dev", "--scope", "tokens:create"]).await;
    let listening = settings.run(&["webhook", "listen", "--port", "0"]);
    let line = listening.wait_for(|process| process.out().lines().next().map(str::to_owned)).await;
    let (id, url) = (line.split(' ').nth(1).unwrap(), line.split(' ').nth(4).unwrap().trim_end_matches(';'));
    assert!(url.starts_with("http://127.0.0.1:"), "{line}");

    dev.client.token = Some(key.trim().to_owned());
    let (status, session) = dev.client.post("/api/admin/tokens", &serde_json::json!({ "subject": "user-42" })).await;
    assert_eq!(status, 200, "{session}");
    dev.client.token = Some(session["token"].as_str().unwrap().to_owned());
    let (image, _) = dev.client.upload(&unique_png()).await;
    let received = |process: &Process| process.out().lines().find(|line| line.starts_with("image.ready ")).map(str::to_owned);
    let message = listening.wait_for(received).await;
    assert!(message.contains(image["id"].as_str().unwrap()) && message.contains("user-42"), "{message}");

    let forged = dev.client.http.post(url).header("webhook-id", "a").header("webhook-timestamp", "1");
    let forged = forged.header("webhook-signature", "v1,AAAA").body(r#"{"type":"forged"}"#).send().await.unwrap();
    assert_eq!(forged.status(), 401);
    let taken = settings.run(&["webhook", "listen", "--port", url.trim_end_matches('/').rsplit(':').next().unwrap()]);
    let Ended { status, err, .. } = taken.wait_for_end(Duration::from_secs(30)).await;
    assert!(!status.success() && err.contains("--port"), "{err}");
    assert!(run(&["webhook", "list"]).await.contains(&format!("{id} on ")));
    listening.signal("-INT");
    let Ended { status, out, err } = listening.wait_for_end(Duration::from_secs(30)).await;
    assert!(status.success() && !out.contains("forged") && err.contains("refused a request"), "{out}{err}");
    assert!(run(&["webhook", "list"]).await.contains(&format!("{id} off ")), "the endpoint is turned off");
    dev.stop("-INT").await;
}
