//! Covers names whose addresses change or are mixed, with a real DNS server and the system's resolver: the address that was judged
//! is the one that is connected to.
//!
//! The test runs itself again in a network of its own, where it may answer as a DNS server and have a public address. That needs
//! no privileges, but namespaces and `ip`; without them it is skipped with a message.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use valet::{
    domain::webhooks::addresses::are_permitted,
    store::webhook_sender::{SendError, Transport, WebhookAnswer, WebhookRequest, WebhookSender},
};

use super::*;
use crate::skipping::skip;

/// Set for the run in a network of its own.
const OWN_NETWORK: &str = "VALET_TEST_OWN_NETWORK";
/// A public address, which the run in a network of its own has.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);
/// Brings the loopback interface up with a public address, and resolves names by the DNS server of the test alone.
const PREPARE: &str = "ip link set lo up && ip address add 93.184.215.14/32 dev lo && mount --bind \"$1/resolv.conf\" \
    /etc/resolv.conf && mount --bind \"$1/nsswitch.conf\" /etc/nsswitch.conf && echo prepared && shift && exec \"$@\"";

#[tokio::test(flavor = "multi_thread")]
async fn name_whose_address_changes_is_connected_to_at_the_judged_address() {
    if std::env::var_os(OWN_NETWORK).is_some() {
        return attempts_by_name().await;
    }
    let folder = crate::servers::scratch_dir().join(uuid::Uuid::new_v4().to_string());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:30 attempts:1\n").unwrap();
    std::fs::write(folder.join("nsswitch.conf"), "hosts: dns\n").unwrap();
    let Some((status, output)) = run_in_own_network(&folder) else {
        return skip("network namespaces are not available");
    };
    assert!(status && output.contains("1 passed"), "{output}");
}

/// Runs this test in namespaces of its own; `None` on a kernel without them.
fn run_in_own_network(folder: &Path) -> Option<(bool, String)> {
    let done = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--net", "sh", "-c", PREPARE, "network"])
        .arg(folder)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "webhooks::rebinding::name_whose_address_changes_is_connected_to_at_the_judged_address", "--nocapture"])
        .env(OWN_NETWORK, "1")
        .output()
        .ok()?;
    let output = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    output.contains("prepared").then_some((done.status.success(), output))
}

/// The queries for IPv4 addresses that a DNS server has answered, by name.
type Queries = Arc<Mutex<BTreeMap<String, usize>>>;

/// Starts a DNS server: `answer` gets a name and the number of earlier queries for it.
async fn serve_names(answer: fn(&str, usize) -> Vec<Ipv4Addr>) -> Queries {
    let socket = UdpSocket::bind("127.0.0.1:53").await.unwrap();
    let queries = Queries::default();
    let counted = queries.clone();
    tokio::spawn(async move {
        let mut packet = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            let (name, question) = question(&packet[..length]);
            let is_for_ipv4 = question[question.len() - 4..][..2] == [0, 1];
            let addresses = if is_for_ipv4 {
                let mut counted = counted.lock();
                let earlier = counted.entry(name.clone()).or_default();
                *earlier += 1;
                answer(&name, *earlier - 1)
            } else {
                Vec::new()
            };
            // The header: the id, a response with recursion, one question, the answers.
            let mut response =
                [&packet[..2], &[0x81, 0x80, 0, 1, 0, u8::try_from(addresses.len()).unwrap(), 0, 0, 0, 0]].concat();
            response.extend(question);
            for address in addresses {
                // The name of the question, type A, class IN, no time to live, four bytes.
                response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                response.extend(address.octets());
            }
            socket.send_to(&response, from).await.unwrap();
        }
    });
    queries
}

/// Returns the name in a query, and the whole question.
fn question(packet: &[u8]) -> (String, &[u8]) {
    let (mut at, mut labels) = (12, Vec::new());
    while packet[at] != 0 {
        let end = at + 1 + usize::from(packet[at]);
        labels.push(String::from_utf8(packet[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    (labels.join("."), &packet[12..at + 5])
}

/// Returns the answer of the name server to a query, after this number of earlier queries for the same name.
fn addresses(name: &str, earlier: usize) -> Vec<Ipv4Addr> {
    match (name, earlier) {
        ("rebinding.example", 0) | ("public.example", _) => vec![PUBLIC],
        ("rebinding.example", _) | ("loopback.example", _) => vec![Ipv4Addr::LOCALHOST],
        ("mixed.example", _) => vec![PUBLIC, Ipv4Addr::LOCALHOST],
        ("metadata.example", _) => vec![Ipv4Addr::new(169, 254, 169, 254)],
        _ => Vec::new(),
    }
}

/// Sends webhooks to names whose addresses are public, private, mixed or changing.
async fn attempts_by_name() {
    let queries = serve_names(addresses).await;
    let public = Receiver::start_at(&format!("{PUBLIC}:8080"), |_| status(200)).await;
    let loopback = Receiver::start_at("127.0.0.1:8080", |_| status(200)).await;
    let sender = WebhookSender::default();
    let permits = |_: Transport, addresses: &[IpAddr]| are_permitted(addresses, &[]);
    let send = async |name: &str| {
        let url = format!("http://{name}:8080/");
        let request = WebhookRequest { url: &url, id: "a", timestamp: 0, signature: String::new(), body: "{}" };
        sender.send(&request, &permits).await
    };
    let delivered = Ok(WebhookAnswer { status: 200, retry_after: None });
    assert_eq!(send("public.example").await, delivered);
    assert_eq!(send("rebinding.example").await, delivered, "the first answer is public");
    assert_eq!((public.messages().len(), loopback.messages().len()), (2, 0));
    assert_eq!(queries.lock()["rebinding.example"], 1, "an attempt resolves a name once");
    assert_eq!(send("rebinding.example").await, Err(SendError::NotPermitted), "each attempt resolves it again");
    for refused in ["loopback.example", "mixed.example", "metadata.example"] {
        assert_eq!(send(refused).await, Err(SendError::NotPermitted), "{refused}");
    }
    assert_eq!(send("unknown.example").await, Err(SendError::Resolve));
    assert_eq!((public.messages().len(), loopback.messages().len()), (2, 0));
}
