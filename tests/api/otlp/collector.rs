//! An OpenTelemetry collector for tests: it accepts OTLP over HTTP and reads the protobuf by the field numbers of
//! <https://github.com/open-telemetry/opentelemetry-proto>, independently of the exporter's code.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use poem::{EndpointExt, Route, Server, handler, http::HeaderMap, listener::TcpAcceptor, post, web::Data};

/// A received span.
#[derive(Debug, Clone)]
pub struct Span {
    /// In hexadecimal, like the next two.
    pub trace: String,
    pub id: String,
    /// Empty for a trace's first span.
    pub parent: String,
    pub state: String,
    pub name: String,
    /// 1: internal, 2: server, 3: client.
    pub kind: u64,
    /// Unix time in nanoseconds.
    pub began: u64,
    pub ended: u64,
    /// 0: unset, 2: error.
    pub status: u64,
    pub attributes: BTreeMap<String, String>,
    /// Attributes of the whole process.
    pub resource: BTreeMap<String, String>,
}

#[derive(Clone, Default)]
struct Seen {
    spans: Arc<Mutex<Vec<Span>>>,
    headers: Arc<Mutex<Vec<HeaderMap>>>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

pub struct Collector {
    pub endpoint: String,
    seen: Seen,
}

/// Receives an export.
#[handler]
fn take(body: Vec<u8>, headers: &HeaderMap, seen: Data<&Seen>) {
    seen.headers.lock().unwrap().push(headers.clone());
    seen.spans.lock().unwrap().extend(spans(&body));
    seen.bytes.lock().unwrap().extend(body);
}

impl Collector {
    /// Starts a collector that accepts every export.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Seen::default();
        let routes = Route::new().at("/v1/traces", post(take)).data(seen.clone());
        let acceptor = TcpAcceptor::from_std(listener.into_std().unwrap()).unwrap();
        tokio::spawn(Server::new_with_acceptor(acceptor).run(routes));
        Self { endpoint, seen }
    }

    /// Returns all spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        self.seen.spans.lock().unwrap().clone()
    }

    /// Returns the headers of all exports.
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.seen.headers.lock().unwrap().clone()
    }

    /// Returns whether this text occurs anywhere in the received data.
    pub fn holds(&self, text: &str) -> bool {
        let (bytes, text) = (self.seen.bytes.lock().unwrap().to_ascii_lowercase(), text.to_ascii_lowercase());
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// A field of a message: its number and value.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Parses the wire format: <https://protobuf.dev/programming-guides/encoding/>.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Number(u64::from_le_bytes(taken(&mut bytes, 8).try_into().unwrap())),
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                Field::Bytes(taken(&mut bytes, length))
            }
            5 => Field::Number(u32::from_le_bytes(taken(&mut bytes, 4).try_into().unwrap()).into()),
            other => panic!("wire type {other}"),
        };
        found.push((tag >> 3, field));
    }
    found
}

/// Reads a variable-length integer of Protocol Buffers.
fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = taken(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// Removes and returns the first `count` bytes.
fn taken<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

/// Returns the messages in all fields of this number.
fn messages(bytes: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(bytes).into_iter().filter_map(move |(found, field)| match field {
        Field::Bytes(bytes) if found == number => Some(bytes),
        _ => None,
    })
}

/// Requests contain resources, resources contain scopes, and scopes contain spans.
fn spans(request: &[u8]) -> Vec<Span> {
    let of_resource = |bytes| {
        let resource = messages(bytes, 1).next().map(|resource| attributes(resource, 1)).unwrap_or_default();
        let scopes = messages(bytes, 2).flat_map(|scope| messages(scope, 2).collect::<Vec<_>>());
        scopes.map(move |bytes| span(bytes, resource.clone())).collect::<Vec<_>>()
    };
    messages(request, 1).flat_map(of_resource).collect()
}

/// Decodes a span.
fn span(bytes: &[u8], resource: BTreeMap<String, String>) -> Span {
    let hex = |number| messages(bytes, number).next().unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
    let number = |number| self::number(bytes, number);
    Span {
        trace: hex(1),
        id: hex(2),
        parent: hex(4),
        state: text(bytes, 3),
        name: text(bytes, 5),
        kind: number(6),
        began: number(7),
        ended: number(8),
        status: messages(bytes, 15).next().map_or(0, |status| self::number(status, 3)),
        attributes: attributes(bytes, 9),
        resource,
    }
}

/// Returns the integer field of this number, or 0.
fn number(bytes: &[u8], number: u64) -> u64 {
    let value = |(found, field)| match field {
        Field::Number(value) if found == number => Some(value),
        _ => None,
    };
    // If a field is repeated, its last value counts.
    fields(bytes).into_iter().rev().find_map(value).unwrap_or(0)
}

/// Returns the text field of this number, or an empty text.
fn text(bytes: &[u8], number: u64) -> String {
    String::from_utf8(messages(bytes, number).next().unwrap_or_default().to_vec()).unwrap()
}

/// Returns keys and values, all as text.
fn attributes(bytes: &[u8], number: u64) -> BTreeMap<String, String> {
    let value = |bytes: &[u8]| {
        let value = messages(bytes, 2).next().unwrap_or_default();
        match fields(value).into_iter().next() {
            Some((_, Field::Bytes(text))) => String::from_utf8_lossy(text).into_owned(),
            Some((_, Field::Number(n))) => n.to_string(),
            None => String::new(),
        }
    };
    messages(bytes, number).map(|pair| (text(pair, 1), value(pair))).collect()
}
