//! `/api/events`: the changes of the user's images as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! The handler ends when the stream has begun, so a stream has no permit and is measured as a short request. `http::server` closes
//! its connection if the client does not read, as with any response.

use std::{io, time::Instant};

use bytes::Bytes;
use futures_util::{Stream, stream};
use poem::{
    Body, IntoResponse, Response,
    http::{HeaderValue, header},
};
use poem_openapi::{
    ApiResponse, OpenApi,
    param::Header,
    payload::Payload,
    registry::{MetaSchema, MetaSchemaRef},
};
use secrecy::{ExposeSecret, SecretString};
use time::OffsetDateTime;

use super::{
    authentication::{AccessToken, Application, CurrentUser},
    operation::{Operation, RequestBody, SHORT_DEADLINE, Tag},
    problem::Problem,
};
use crate::{
    domain::{
        authentication::AuthenticateError,
        event_streams::{
            Notice, StreamStart, Subscription,
            schedule::{Due, Schedule},
        },
        throttle::names::CALLS,
    },
    model::EventPosition,
    state::AppState,
};

/// Metadata of the operations below.
pub(super) const OPERATIONS: &[Operation] =
    &[Operation { id: "stream_events", body: RequestBody::None, deadline: SHORT_DEADLINE, rate_limits: &[CALLS], problems: &[] }];

/// Milliseconds after which a client reconnects, sent at the beginning of a stream.
const RETRY_MS: u32 = 2000;

/// Handlers of event streams.
pub struct EventsApi;

/// The body of a stream.
struct EventStream(Body);

impl Payload for EventStream {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    // Not an array of events: client generators would expect a JSON array.
    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema::new("string")))
    }
}

impl IntoResponse for EventStream {
    fn into_response(self) -> Response {
        Response::builder()
            .header(header::CONTENT_TYPE, Self::CONTENT_TYPE)
            // nginx would buffer the response: https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering
            .header("x-accel-buffering", HeaderValue::from_static("no"))
            .body(self.0)
    }
}

#[derive(ApiResponse)]
enum StreamResponse {
    /// Server-sent events, until the client or the server closes the connection.
    #[oai(status = 200)]
    Open(EventStream),
}

#[OpenApi(prefix_path = "/api", tag = "Tag::Gallery")]
impl EventsApi {
    /// Stream events
    ///
    /// Server-sent events about the user's images, from every device. Each event has a type (`image.ready`, `image.rejected`,
    /// `image.deleted`, `image.updated`, `upload.expired`; later versions add more, ignore unknown types) and as data the image's
    /// id: `{"id": "…"}`. Read the image or the gallery page for anything else. An event may come twice.
    /// The type `reset` means that events may be missing: read again what is shown, with `If-None-Match`. Comments are
    /// heartbeats, one every 20 seconds.
    /// The server closes the stream after at most 30 minutes, when it stops, and within 30 seconds of the token's or the session's
    /// end. Reconnect with a growing delay, a current token, and the last `id` as `Last-Event-ID`: the events since then follow,
    /// or a `reset`. A user may have 5 streams (429). Browsers' `EventSource` cannot send the token; use `fetch`. Generated
    /// clients wait for the end of the response: use a client for server-sent events.
    #[oai(path = "/events", method = "get", operation_id = "stream_events")]
    async fn stream(
        &self,
        app: Application<'_>,
        caller: CurrentUser,
        token: AccessToken,
        /// The last `id` that the client received. Without it, the stream begins with the next event.
        #[oai(name = "Last-Event-ID")]
        last_event_id: Header<Option<String>>,
    ) -> Result<StreamResponse, Problem> {
        let start = last_event_id
            .as_deref()
            .filter(|id| !id.is_empty())
            .map_or(StreamStart::Now, |id| id.parse().map_or(StreamStart::Unknown, StreamStart::After));
        let events = app.valet.event_streams.open(caller.user, start).await?;
        let stream = OpenStream::new(app.0.clone(), token.0, events, Instant::now());
        Ok(StreamResponse::Open(EventStream(Body::from_bytes_stream(stream.frames()))))
    }
}

/// A stream under way.
struct OpenStream {
    app: AppState,
    token: SecretString,
    events: Subscription,
    schedule: Schedule,
}

impl OpenStream {
    fn new(app: AppState, token: SecretString, events: Subscription, now: Instant) -> Self {
        // A random byte: streams that were opened together do not end together.
        let spread = uuid::Uuid::new_v4().as_bytes()[0];
        Self { app, token, events, schedule: Schedule::new(now, spread) }
    }

    /// Returns the frames of the stream. The first one is ready at once, so that the client gets the response's head without delay.
    fn frames(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let id = self.events.start_position().map_or_else(String::new, |position| format!("id: {position}\n"));
        let first = Bytes::from(format!("retry: {RETRY_MS}\n{id}\n"));
        stream::unfold((self, Some(first)), |(mut stream, first)| async move {
            let frame = match first {
                Some(first) => first,
                None => stream.next_frame().await?,
            };
            Some((Ok(frame), (stream, None)))
        })
    }

    /// Waits for the next frame; `None` at the stream's end.
    async fn next_frame(&mut self) -> Option<Bytes> {
        loop {
            let now = Instant::now();
            match self.schedule.due(now) {
                Due::End => return None,
                Due::Check => self.check_token().await?,
                Due::Heartbeat => {
                    self.schedule.record_message(now);
                    return Some(heartbeat(self.events.received_position()));
                }
                Due::Wait(until) => {
                    let notice = tokio::time::timeout_at(until.into(), self.events.next()).await;
                    if let Ok(notice) = notice {
                        self.schedule.record_message(Instant::now());
                        return notice.map(frame);
                    }
                }
            }
        }
    }

    /// Checks the token; `None` if the stream must end.
    async fn check_token(&mut self) -> Option<()> {
        // Boxed, since a stream that waits needs no memory for it.
        let check = Box::pin(self.app.valet.sessions.recheck(self.token.expose_secret(), OffsetDateTime::now_utc()));
        let continues = match check.await {
            Ok(()) => {
                self.schedule.record_check(Instant::now());
                true
            }
            Err(AuthenticateError::Store(_) | AuthenticateError::KeysUnavailable) => {
                self.schedule.record_failed_check(Instant::now())
            }
            Err(AuthenticateError::Token(_) | AuthenticateError::SessionEnded | AuthenticateError::Suspended) => false,
        };
        continues.then_some(())
    }
}

/// Writes a message. Its `id` is the position after the message, from which the client can resume.
fn frame(notice: Notice) -> Bytes {
    match notice {
        Notice::Changed(change) => {
            let (id, event, image) = (change.position, change.event.as_str(), change.image);
            format!("id: {id}\nevent: {event}\ndata: {{\"id\":\"{image}\"}}\n\n").into()
        }
        Notice::Reset(position) => format!("id: {position}\nevent: reset\ndata: {{}}\n\n").into(),
    }
}

/// Writes a comment, with the position from which the client can resume: a message without data sets the client's last id and
/// causes no event.
fn heartbeat(received_position: Option<EventPosition>) -> Bytes {
    match received_position {
        Some(position) => format!(":\nid: {position}\n\n").into(),
        None => Bytes::from_static(b":\n\n"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        model::{EventType, ImageId, UserId},
        store::ImageChange,
    };

    #[test]
    fn frames_name_the_image_and_nothing_else() {
        let position = EventPosition { seconds: 5, increment: 6, changes: 7 };
        let image = ImageId::parse("0198f3c2-7a10-4c3e-9d52-6b1f0e8a7c44").unwrap();
        let change = ImageChange { position, user: UserId::new(), image, event: EventType::ImageDeleted };
        let written = frame(Notice::Changed(change));
        assert_eq!(written, "id: 5-6-7\nevent: image.deleted\ndata: {\"id\":\"0198f3c2-7a10-4c3e-9d52-6b1f0e8a7c44\"}\n\n");
        assert_eq!(frame(Notice::Reset(position)), "id: 5-6-7\nevent: reset\ndata: {}\n\n");
        assert_eq!(heartbeat(Some(position)), ":\nid: 5-6-7\n\n");
        assert_eq!(heartbeat(None), ":\n\n");
    }
}
