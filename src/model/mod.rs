//! The types that all layers share: identifiers, validated values, the states of an image with their legal transitions,
//! reservations of quota, the messages of the decoding child, the store's notifications, and the header lists of CORS.
//!
//! They do no I/O, and name no types of poem, the MongoDB driver or the AWS SDK. A value of one of these types has been validated;
//! the rest of the program does not validate it again.

mod caption;
mod capture;
mod content_type;
pub mod cors;
pub mod decoding;
mod download_name;
mod email;
mod event;
mod event_position;
mod file_name;
mod format;
mod gallery_order;
mod hidden_characters;
mod id;
mod idempotency;
mod image;
mod network;
mod object_key;
mod orientation;
#[cfg(test)]
mod parser_tests;
mod part_layout;
mod preview;
mod rejection;
mod rendering;
mod reservation;
pub mod s3_event;
#[cfg(test)]
mod s3_event_tests;
mod service_key;
mod sha256;
mod subject;
mod taken_at;
#[cfg(test)]
pub(crate) mod text_strategies;
mod upload;
mod user;
mod webhook_endpoint;

pub use caption::Caption;
pub use capture::{Camera, Capture, Location};
pub use content_type::ContentType;
pub use email::{Email, InvalidEmail};
pub use event::EventType;
pub use event_position::{EventPosition, InvalidEventPosition};
pub use file_name::{FileName, InvalidFileName};
pub use format::Format;
pub use gallery_order::{GalleryOrder, Position};
pub use id::{DeploymentId, EventId, ImageId, ServiceKeyId, SessionId, StepId, UserId};
pub use idempotency::{Idempotency, IdempotencyKey, InvalidIdempotencyKey};
pub use image::{Dimensions, Image, ImageEnd, ImageState, ImageStatus, Lifetimes, ReadyImage, Verified};
pub use network::{NetworkPrefix, RequestOrigin};
pub use object_key::{KeyOwner, ObjectKey};
pub use orientation::Orientation;
pub use part_layout::{PartChecksums, PartLayout};
pub use preview::{InvalidThumbHash, Preview, ThumbHash};
pub use rejection::{ContentError, Rejection};
pub use rendering::{Rendering, RenderingFailure};
pub use reservation::{OPENING_GRACE, QuotaCounter, Reservation, ReservationStep, TimelineChange, UrlLifetime, UsageCounts};
pub use service_key::{InvalidKeyName, KeyName, Scope, ServiceKeyToken};
pub use sha256::{InvalidSha256, Sha256};
pub use subject::{InvalidSubject, Subject};
pub use taken_at::{TakenAt, TimelineMonth, parse_offset};
pub use upload::{Upload, UploadKind};
pub use user::{Usage, User};
pub use webhook_endpoint::{DisabledReason, EndpointState, MAX_WEBHOOK_ENDPOINTS, WebhookEndpoint, parse_endpoint_url};
