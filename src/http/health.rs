//! `/livez` and `/readyz`: for orchestrators and load balancers.

use poem_openapi::{Object, OpenApi, payload::Json};

use super::{
    authentication::Application,
    operation::{Operation, RequestBody, SHORT_DEADLINE, Tag},
    problem::{Code, Problem},
};

/// Metadata of the operations below. They have no rate limits, because orchestrators and load balancers must always get an answer;
/// MongoDB and S3 are probed once a second at most.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation { id: "get_liveness", body: RequestBody::None, deadline: SHORT_DEADLINE, rate_limits: &[], problems: &[] },
    Operation { id: "get_readiness", body: RequestBody::None, deadline: SHORT_DEADLINE, rate_limits: &[], problems: &[] },
];

/// Handlers of health checks.
pub struct HealthApi;

/// A positive health check.
#[derive(Object)]
struct HealthStatus {
    /// Always `ok`.
    status: String,
}

/// Returns the response of a positive check.
fn ok() -> Json<HealthStatus> {
    Json(HealthStatus { status: "ok".to_owned() })
}

#[OpenApi(tag = "Tag::Health")]
impl HealthApi {
    /// Check that the process is alive
    ///
    /// Does not check the database or the bucket.
    #[oai(path = "/livez", method = "get", operation_id = "get_liveness")]
    async fn live(&self) -> Json<HealthStatus> {
        ok()
    }

    /// Check that requests can be served
    ///
    /// Checks the database and the bucket; the result is cached for a second. A 503 names the part that fails.
    #[oai(path = "/readyz", method = "get", operation_id = "get_readiness")]
    async fn ready(&self, app: Application<'_>) -> Result<Json<HealthStatus>, Problem> {
        match app.readiness().await {
            Ok(()) => Ok(ok()),
            Err(part) => Err(Problem::new(Code::Unavailable, format!("Not ready: {part}."))),
        }
    }
}
