//! Reads the metrics of a measured server.

use std::net::SocketAddr;

use super::client::{Connection, request};

/// Returns the value of a metric at the address of `ADMIN_BIND`. The name includes the labels, if there are any.
pub async fn metric(admin_address: SocketAddr, name: &str) -> f64 {
    let mut connection = Connection::open(admin_address).await;
    let (status, body) = connection.send(&request("GET", "/metrics", None, None)).await;
    assert_eq!(status, 200);
    let text = String::from_utf8_lossy(body);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
}
