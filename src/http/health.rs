//! `/livez` and `/readyz`: for orchestrators and balancers.

use poem_openapi::{Object, OpenApi, payload::Json};

use super::{
    Tag,
    bearer::Application,
    problem::{Code, Problem},
};

/// The problems of each operation, beside those of every operation of its shape.
pub const PROBLEMS: &[(&str, &[Code])] =
    &[("get_liveness", &[Code::MethodNotAllowed]), ("get_readiness", &[Code::MethodNotAllowed])];

/// The operations.
pub struct Health;

/// All is well.
#[derive(Object)]
#[oai(rename = "Health")]
struct Healthy {
    /// Always `ok`.
    status: String,
}

fn ok() -> Json<Healthy> {
    Json(Healthy { status: "ok".to_owned() })
}

#[OpenApi(tag = "Tag::Health")]
impl Health {
    /// Is the process alive
    ///
    /// Asks nothing of any dependency.
    #[oai(path = "/livez", method = "get", operation_id = "get_liveness")]
    async fn live(&self) -> Json<Healthy> {
        ok()
    }

    /// Can requests be served
    ///
    /// Asks the database and the bucket; the answer is kept for a second. 503 names the part that fails.
    #[oai(path = "/readyz", method = "get", operation_id = "get_readiness")]
    async fn ready(&self, app: Application<'_>) -> Result<Json<Healthy>, Problem> {
        match app.readiness().await {
            Ok(()) => Ok(ok()),
            Err(part) => Err(Problem::new(Code::Unavailable, format!("Not ready: {part}."))),
        }
    }
}
