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
    /// Trace id in hexadecimal.
    pub trace: String,
    /// Span id in hexadecimal.
    pub id: String,
    /// Span id of the parent in hexadecimal; empty for a trace's first span.
    pub parent: String,
    /// `tracestate`.
    pub state: String,
    pub name: String,
    /// 1: internal, 2: server, 3: client.
    pub kind: u64,
    /// Unix time in nanoseconds.
    pub began: u64,
    /// Unix time in nanoseconds.
    pub ended: u64,
    /// 0: unset, 2: error.
    pub status: u64,
    pub attributes: BTreeMap<String, String>,
    /// Attributes of the whole process.
    pub resource: BTreeMap<String, String>,
}

/// Everything that a collector has received.
#[derive(Clone, Default)]
struct Received {
    spans: Arc<Mutex<Vec<Span>>>,
    headers: Arc<Mutex<Vec<HeaderMap>>>,
    /// Bodies of all exports, one after the other.
    bytes: Arc<Mutex<Vec<u8>>>,
}

/// A running collector; it ends with the test's runtime.
pub struct Collector {
    pub endpoint: String,
    received: Received,
}

/// Receives an export.
#[handler]
fn receive(body: Vec<u8>, headers: &HeaderMap, received: Data<&Received>) {
    received.headers.lock().unwrap().push(headers.clone());
    received.spans.lock().unwrap().extend(spans(&body));
    received.bytes.lock().unwrap().extend(body);
}

impl Collector {
    /// Starts a collector that accepts every export.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let received = Received::default();
        let routes = Route::new().at("/v1/traces", post(receive)).data(received.clone());
        let acceptor = TcpAcceptor::from_std(listener.into_std().unwrap()).unwrap();
        tokio::spawn(Server::new_with_acceptor(acceptor).run(routes));
        Self { endpoint, received }
    }

    /// Returns all spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        self.received.spans.lock().unwrap().clone()
    }

    /// Returns the headers of all exports.
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.received.headers.lock().unwrap().clone()
    }

    /// Returns whether this text occurs anywhere in the received data, in upper or lower case.
    pub fn has_received(&self, text: &str) -> bool {
        let (bytes, text) = (self.received.bytes.lock().unwrap().to_ascii_lowercase(), text.to_ascii_lowercase());
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// Value of a field of a message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Returns numbers and values of the fields of a message in the wire format: <https://protobuf.dev/programming-guides/encoding/>.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Number(u64::from_le_bytes(take_bytes(&mut bytes, 8).try_into().unwrap())),
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                Field::Bytes(take_bytes(&mut bytes, length))
            }
            5 => Field::Number(u32::from_le_bytes(take_bytes(&mut bytes, 4).try_into().unwrap()).into()),
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
        let byte = take_bytes(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// Removes and returns the first `count` bytes.
fn take_bytes<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
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

/// Returns the spans of an export, which contains resources, which contain scopes, which contain spans.
fn spans(request: &[u8]) -> Vec<Span> {
    let spans_of_resource = |bytes| {
        let resource = messages(bytes, 1).next().map(|resource| attributes(resource, 1)).unwrap_or_default();
        let scopes = messages(bytes, 2).flat_map(|scope| messages(scope, 2).collect::<Vec<_>>());
        scopes.map(move |bytes| span(bytes, resource.clone())).collect::<Vec<_>>()
    };
    messages(request, 1).flat_map(spans_of_resource).collect()
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

/// Returns the attributes in all fields of this number, with all values as text.
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
