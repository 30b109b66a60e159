//! `/livez` and `/readyz`: for orchestrators and balancers.

use poem_openapi::{Object, OpenApi, payload::Json};

use super::{
    Tag,
    bearer::Application,
    problem::{Code, Problem},
};

/// Problems of each operation, in addition to those that follow from its shape.
pub const PROBLEMS: &[(&str, &[Code])] = &[("get_liveness", &[]), ("get_readiness", &[])];

/// The operations.
pub struct Health;

/// A positive health check.
#[derive(Object)]
#[oai(rename = "HealthStatus")]
struct Healthy {
    /// Always `ok`.
    status: String,
}

fn ok() -> Json<Healthy> {
    Json(Healthy { status: "ok".to_owned() })
}

#[OpenApi(tag = "Tag::Health")]
impl Health {
    /// Check that the process is alive
    ///
    /// Does not check the database or the bucket.
    #[oai(path = "/livez", method = "get", operation_id = "get_liveness")]
    async fn live(&self) -> Json<Healthy> {
        ok()
    }

    /// Check that requests can be served
    ///
    /// Checks the database and the bucket; the result is cached for a second. A 503 names the part that fails.
    #[oai(path = "/readyz", method = "get", operation_id = "get_readiness")]
    async fn ready(&self, app: Application<'_>) -> Result<Json<Healthy>, Problem> {
        match app.readiness().await {
            Ok(()) => Ok(ok()),
            Err(part) => Err(Problem::new(Code::Unavailable, format!("Not ready: {part}."))),
        }
    }
}
