//! Compares the manifests of deploy/kubernetes with the program: settings, ports, and time to stop.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use serde_json::Value;
use valet::config::Config;
use yaml_rust2::{Yaml, YamlLoader};

use super::file;

/// Settings that the SDK and the log read themselves.
const READ_ELSEWHERE: [&str; 2] = ["AWS_REGION", "RUST_LOG"];

/// Parses a file of `deploy` that has one document.
fn yaml(name: &str) -> Yaml {
    YamlLoader::load_from_str(&file(name)).unwrap().remove(0)
}

/// Returns the pod and its container.
fn pod() -> (Yaml, Yaml) {
    let pod = yaml("kubernetes/base/deployment.yaml")["spec"]["template"]["spec"].clone();
    let container = pod["containers"][0].clone();
    (pod, container)
}

/// Reads a file of `NAME=value` lines.
fn settings(name: &str) -> BTreeMap<String, String> {
    let text = file(name);
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap()).collect()
}

/// Returns a pod's environment: the settings, and the secrets by name.
fn environment() -> BTreeMap<String, String> {
    let mut all = settings("kubernetes/base/valet.env");
    for variable in pod().1["env"].as_vec().unwrap() {
        let name = variable["name"].as_str().unwrap();
        let secret = &variable["valueFrom"]["secretKeyRef"];
        assert_eq!(
            (secret["name"].as_str(), secret["key"].as_str()),
            (Some("valet"), Some(name)),
            "secrets are given by reference"
        );
        let value = match name {
            "MONGODB_URI" => "mongodb+srv://db.example.com",
            "JWT_PREVIOUS_SECRETS" => "fedcba9876543210fedcba9876543210",
            _ => "0123456789abcdef0123456789abcdef",
        };
        all.insert(name.to_owned(), value.to_owned());
    }
    all
}

/// Reads a configuration from these settings and asserts that each of them was read.
fn read(all: &BTreeMap<String, String>) -> Config {
    let names = RefCell::new(BTreeSet::new());
    let config = Config::read(&|name| {
        names.borrow_mut().insert(name.to_owned());
        all.get(name).cloned()
    });
    let names = names.into_inner();
    let unknown: Vec<_> = all.keys().filter(|name| !names.contains(*name) && !READ_ELSEWHERE.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "the program reads none of {unknown:?}");
    config.unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn settings_and_ports_match_the_program() {
    let config = read(&environment());
    let (_, container) = pod();
    let port = |name: &str| {
        let port = container["ports"].as_vec().unwrap().iter().find(|port| port["name"].as_str() == Some(name));
        port.unwrap()["containerPort"].as_i64().unwrap()
    };
    assert_eq!(port("http"), i64::from(config.bind.port()));
    assert_eq!(port("admin"), i64::from(config.admin_bind.unwrap().port()));
    assert_eq!(yaml("kubernetes/base/service.yaml")["spec"]["ports"][0]["targetPort"].as_str(), Some("http"));
    for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let get = &container[probe]["httpGet"];
        assert_eq!((get["path"].as_str(), get["port"].as_str()), (Some(path), Some("admin")), "{probe}");
    }
}

#[test]
fn examples_are_valid_settings() {
    let mut all = environment();
    for literal in yaml("kubernetes/example/kustomization.yaml")["configMapGenerator"][0]["literals"].as_vec().unwrap() {
        let (name, value) = literal.as_str().unwrap().split_once('=').unwrap();
        assert!(all.insert(name.to_owned(), value.to_owned()).is_some(), "{name} is set in the base already");
    }
    read(&all);
    let mut systemd = settings("systemd/valet.env");
    assert_eq!(
        systemd.insert("JWT_SECRET".to_owned(), all["JWT_SECRET"].clone()).as_deref(),
        Some(""),
        "each deployment makes its own secret"
    );
    let config = read(&systemd);
    assert!(config.bind.ip().is_loopback(), "the server listens for a proxy on the same machine");
}

/// A pod is not killed while its server drains, and its server drains only after requests stop coming.
#[test]
fn pod_termination_is_long_enough_for_the_server() {
    // Seconds that requests in progress get, as docs/deployment.md documents.
    const DRAIN: i64 = 25;
    let (pod, container) = pod();
    let pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_i64().unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
    // 5 s each: for load balancers to stop sending requests, and for slack.
    assert!(pre_stop >= 5 && grace >= pre_stop + DRAIN + 5, "{pre_stop} s and {DRAIN} s in {grace} s");
    let rolling = &yaml("kubernetes/base/deployment.yaml")["spec"]["strategy"]["rollingUpdate"];
    assert_eq!(rolling["maxUnavailable"].as_i64(), Some(0));
}

#[test]
fn pod_meets_the_restricted_standard() {
    let (pod, container) = pod();
    let (pod_context, container_context) = (&pod["securityContext"], &container["securityContext"]);
    assert_eq!(pod_context["runAsNonRoot"].as_bool(), Some(true));
    assert_eq!(pod_context["seccompProfile"]["type"].as_str(), Some("RuntimeDefault"));
    assert_eq!(pod["automountServiceAccountToken"].as_bool(), Some(false));
    assert_eq!(
        (container_context["readOnlyRootFilesystem"].as_bool(), container_context["allowPrivilegeEscalation"].as_bool()),
        (Some(true), Some(false))
    );
    assert_eq!(container_context["capabilities"]["drop"][0].as_str(), Some("ALL"));
    let user = pod_context["runAsUser"].as_i64().unwrap();
    assert!(file("Dockerfile").contains(&format!("\nUSER {user}:{user}\n")), "the user of the image");
}

/// The bucket policy rejects signatures that are older than the longest lifetime of a URL, and no valid URL.
#[test]
fn bucket_policy_accepts_every_url_until_it_expires() {
    let uploads = read(&environment()).uploads;
    let longest = uploads.url_ttl.max(uploads.read_url_ttl).as_millis();
    let policy: Value = serde_json::from_str(&file("aws/bucket-policy.json")).unwrap();
    let mut ages =
        policy["Statement"].as_array().unwrap().iter().filter_map(|statement| {
            statement["Condition"]["NumericGreaterThan"]["s3:signatureAge"].as_str()?.parse::<u128>().ok()
        });
    let (age, none) = (ages.next().unwrap(), ages.next());
    // Five minutes, in ms, for differences between clocks.
    let slack = 5 * 60 * 1000;
    assert!(none.is_none() && (longest..=longest + slack).contains(&age), "{longest} ms and {age} ms");
}

/// Returns the first segments of the API's paths in the OpenAPI document.
fn api_roots() -> BTreeSet<String> {
    let document: Value = serde_json::from_str(include_str!("../../../openapi/openapi.json")).unwrap();
    let health = ["livez", "readyz"];
    let roots = document["paths"].as_object().unwrap().keys().map(|path| path.split('/').nth(1).unwrap().to_owned());
    roots.filter(|root| !health.contains(&root.as_str())).collect()
}

#[test]
fn call_without_tls_is_rejected_and_not_redirected() {
    let ingresses = YamlLoader::load_from_str(&file("kubernetes/example/ingress.yaml")).unwrap();
    let annotation = |ingress: &Yaml, name: &str| {
        let name = format!("alb.ingress.kubernetes.io/{name}");
        ingress["metadata"]["annotations"][name.as_str()].as_str().map(str::to_owned)
    };
    for ingress in &ingresses {
        assert_eq!(annotation(ingress, "ssl-redirect"), None);
    }
    let is_plain = |ingress: &&Yaml| annotation(ingress, "listen-ports").unwrap().contains("\"HTTP\"");
    let [plain] = ingresses.iter().filter(is_plain).collect::<Vec<_>>()[..] else { panic!("one ingress without TLS") };
    let refuse: Value = serde_json::from_str(&annotation(plain, "actions.refuse").unwrap()).unwrap();
    assert_eq!(refuse["fixedResponseConfig"]["statusCode"], "403");
    let paths = plain["spec"]["rules"][0]["http"]["paths"].as_vec().unwrap();
    let rejected = paths.iter().filter(|path| path["backend"]["service"]["name"].as_str() == Some("refuse"));
    let rejected: BTreeSet<_> = rejected.map(|path| path["path"].as_str().unwrap().trim_start_matches('/').to_owned()).collect();
    assert_eq!(rejected, api_roots());
    let nginx = file("nginx.conf");
    let roots = api_roots().into_iter().collect::<Vec<_>>().join("|");
    assert!(nginx.contains(&format!("location ~ ^/({roots})/ {{")), "nginx.conf rejects {roots}");
}

#[test]
fn alerts_of_the_operator_manifest_equal_the_alerts() {
    assert_eq!(yaml("kubernetes/monitoring/rules.yaml")["spec"], yaml("alerts.yaml"));
}
