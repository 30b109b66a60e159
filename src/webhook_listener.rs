//! `valet webhook listen`: receives messages on the loopback interface, verifies them, and prints them. For development.

use std::{convert::Infallible, net::Ipv4Addr, sync::Arc};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use secrecy::ExposeSecret;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use valet::{
    domain::webhooks::{
        endpoints::Endpoints,
        signature::{EndpointSecret, SignedContent},
    },
    model::WebhookEndpoint,
};

use crate::{Failure, output};

/// Maximum bytes of a message's body. Messages of Valet are smaller.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Seconds by which the time of an attempt may differ from this machine's clock.
const MAX_CLOCK_DIFFERENCE_SECONDS: u64 = 5 * 60;

/// Adds an endpoint with the address of this process, or turns the existing one on, and prints the received messages until `stop`.
/// Then turns the endpoint off.
pub async fn listen(endpoints: &Endpoints, port: u16, stop: CancellationToken) -> Result<(), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| format!("cannot listen on 127.0.0.1:{port}: {error}; choose another with --port"))?;
    let url = format!("http://{}/", listener.local_addr()?);
    let known = endpoints.list().await?.into_iter().find(|endpoint| endpoint.url == url);
    let endpoint = match known {
        Some(endpoint) => endpoint,
        None => endpoints.add(&url, Vec::new(), OffsetDateTime::now_utc()).await?,
    };
    endpoints.enable(&endpoint.id).await?;
    // Also after a failure, because messages to an enabled endpoint are attempted again and again.
    let received = receive(&listener, endpoints, &endpoint, stop).await;
    endpoints.disable(&endpoint.id).await?;
    received
}

/// Prints the messages that the listener receives for this endpoint, until `stop`.
async fn receive(
    listener: &TcpListener,
    endpoints: &Endpoints,
    endpoint: &WebhookEndpoint,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let secret = endpoints.secret(&endpoint.id).await?;
    let secret = Arc::new(EndpointSecret::parse(secret.expose_secret()).ok_or("the secret of the endpoint cannot be read")?);
    output::print_line(format_args!("endpoint {} receives at {}; Ctrl-C turns it off", endpoint.id, endpoint.url))?;
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted?.0,
        };
        let secret = secret.clone();
        let service = service_fn(move |request| {
            let secret = secret.clone();
            async move { Ok::<_, Infallible>(answer(request, &secret).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Prints a message if it is signed, and answers it.
async fn answer(request: Request<Incoming>, secret: &EndpointSecret) -> Response<Empty<Bytes>> {
    let status = match verify(request, secret).await {
        Ok(line) => output::print_line(line).map_or(StatusCode::INTERNAL_SERVER_ERROR, |()| StatusCode::NO_CONTENT),
        Err(why) => {
            output::print_error(format_args!("refused a request: {why}"));
            StatusCode::UNAUTHORIZED
        }
    };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

/// Verifies signature and time of a message. Returns the line to print, or the reason to reject the message.
async fn verify(request: Request<Incoming>, secret: &EndpointSecret) -> Result<String, &'static str> {
    let (head, body) = request.into_parts();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let (id, signatures) = header("webhook-id").zip(header("webhook-signature")).ok_or("it has no signature")?;
    let timestamp = header("webhook-timestamp").and_then(|text| text.parse::<i64>().ok()).ok_or("it has no time")?;
    let body =
        Limited::new(body, MAX_MESSAGE_BYTES).collect().await.map_err(|_| "its body is too large or incomplete")?.to_bytes();
    if !(SignedContent { id, timestamp, body: &body }).has_signature_by(signatures, secret) {
        return Err("its signature is not that of the endpoint's secret");
    }
    if OffsetDateTime::now_utc().unix_timestamp().abs_diff(timestamp) > MAX_CLOCK_DIFFERENCE_SECONDS {
        return Err("it is older than five minutes, or the clocks differ");
    }
    let message: Value = serde_json::from_slice(&body).map_err(|_| "its body is not JSON")?;
    Ok(format!("{} {id} {}", message["type"].as_str().unwrap_or("-"), message["data"]))
}
