//! HTTP: what clients send and see. Handlers convert, make one call into the domain, and respond.
//!
//! One file per resource; problems, limits, CORS and the outermost layer beside them. Nothing here names mongodb or aws.

pub mod admin;
pub mod auth;
pub mod batch;
mod bearer;
mod body;
pub mod budgets;
mod client;
mod compression;
pub mod cors;
mod docs;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod gallery;
pub mod health;
mod image_page;
pub mod leaving;
mod limits;
pub mod multipart;
pub mod openapi;
mod outermost;
mod page;
pub mod problem;
pub mod server;
pub mod sessions;
mod shape;
mod site;
pub mod uploads;
pub mod uppy;
mod view;
mod written;

use poem::{Endpoint, EndpointExt, IntoEndpoint, Response};
use poem_openapi::Tags;

use crate::{config::Config, state::AppState};

/// The tags of the OpenAPI document, in reading order.
#[derive(Tags)]
enum Tag {
    /// Sign up, sign in, and manage the account.
    Accounts,
    /// From a file to a stored image.
    Uploads,
    /// Operations for many images in one request.
    Batches,
    /// Read, caption and delete images.
    Gallery,
    /// For `@uppy/aws-s3`: the operations of `@uppy/companion`.
    Uppy,
    /// Health checks, for orchestrators and load balancers.
    Health,
}

/// Everything this server answers.
#[must_use]
pub fn endpoint(app: AppState, config: &Config) -> impl Endpoint<Output = Response> + 'static {
    let api = match config.switches.uppy {
        true => openapi::service().into_endpoint().map_to_response().boxed(),
        false => openapi::service_without_uppy().into_endpoint().map_to_response().boxed(),
    };
    let outermost = outermost::Outermost::new(app.proxies.clone(), config);
    let pages = site::routes(docs::routes(api, config.switches), app.valet.bucket_origin(), config.switches);
    pages.data(app).with(compression::Gzip).with(outermost).with(cors::Cors(config.cors.clone()))
}
