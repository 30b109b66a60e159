//! Mounts the routes of the public address: the API, Swagger UI and the gallery page, with the middleware around them.

use std::sync::{Arc, LazyLock};

use poem::{Endpoint, EndpointExt, IntoEndpoint, Request, Response, Route, endpoint::BoxEndpoint};

use super::{
    middleware::{
        admission::with_admission, compression::with_compression, cors::with_cors, errors::with_problems,
        observe::with_observation, request_id::with_request_ids, security_headers::with_security_headers,
    },
    openapi, operations,
    route_table::{RouteTable, RoutedOperation},
    static_files::{self, ImageOrigins},
    swagger_ui,
};
use crate::{
    config::{Config, Switches},
    state::AppState,
};

/// Returns the endpoint of the public address.
#[must_use]
pub fn endpoint(app: AppState, config: &Config) -> impl Endpoint<Output = Response> + 'static {
    let documented = route_table(config.switches);
    let proxies = app.proxies.clone();
    let origins = ImageOrigins {
        bucket: app.valet.dependencies.bucket_origin(),
        previews: config.previews.imgproxy().map(|imgproxy| imgproxy.origin().to_owned()),
    };
    let api = Arc::new(api_endpoint(config.switches));
    let routes = static_files::mount(api_routes(api.clone(), config.switches), &origins, config.switches);
    let routes = if config.switches.docs { swagger_ui::mount(routes, config.switches) } else { routes };
    // From the innermost to the outermost.
    let endpoint = with_compression(Routes { api, all: routes }.data(app));
    let endpoint = with_admission(endpoint, proxies.clone(), documented.clone(), config.load.max_requests);
    // Boxed: the compiler limits the depth of nested types.
    let endpoint = with_problems(endpoint, documented.clone()).boxed();
    let endpoint = with_security_headers(endpoint, proxies.clone());
    let endpoint = with_observation(endpoint, proxies, documented);
    let endpoint = with_request_ids(endpoint);
    with_cors(endpoint, config.cors.clone())
}

/// Documented operations of a server, built once per process: poem-openapi describes all schemas for it.
static ROUTE_TABLE: LazyLock<Arc<RouteTable>> = LazyLock::new(|| Arc::new(build_route_table(openapi::Offered::All)));
/// Documented operations of a server with `UPPY=off`.
static ROUTE_TABLE_WITHOUT_UPPY: LazyLock<Arc<RouteTable>> =
    LazyLock::new(|| Arc::new(build_route_table(openapi::Offered::WithoutUppy)));

/// Returns the operations of the OpenAPI document with their metadata.
fn route_table(switches: Switches) -> Arc<RouteTable> {
    if switches.uppy { ROUTE_TABLE.clone() } else { ROUTE_TABLE_WITHOUT_UPPY.clone() }
}

/// Builds the table of the operations that are offered. A test fails for an operation without metadata.
fn build_route_table(offered: openapi::Offered) -> RouteTable {
    RouteTable::new(openapi::operations(offered).into_iter().filter_map(|documented| {
        let operation = operations::find(&documented.id)?;
        Some(RoutedOperation { path: documented.path, method: documented.method, operation })
    }))
}

/// All routes, with a short way to those of the API.
struct Routes {
    api: Arc<BoxEndpoint<'static>>,
    all: Route,
}

impl Endpoint for Routes {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let path = request.uri().path();
        // The router of all paths rejects an encoded path that is not UTF-8; the one inside the API does not.
        if path.starts_with("/api/") && !path.contains('%') { self.api.call(request).await } else { self.all.call(request).await }
    }
}

/// Returns the endpoint of the API, which has a router of its own.
fn api_endpoint(switches: Switches) -> BoxEndpoint<'static> {
    match switches.uppy {
        true => openapi::service().into_endpoint(),
        false => openapi::service_without_uppy().into_endpoint(),
    }
}

/// Returns the routes of the API.
fn api_routes(api: Arc<BoxEndpoint<'static>>, switches: Switches) -> Route {
    // Not nested at the root, where it would hide the other routes.
    let routes = Route::new().nest_no_strip("/api", api.clone()).at("/livez", api.clone()).at("/readyz", api.clone());
    if switches.uppy { routes.nest_no_strip("/uppy", api) } else { routes }
}
