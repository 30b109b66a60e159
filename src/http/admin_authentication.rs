//! The service key of a call to `/api/admin`. A handler with a parameter of type [`AdminKey`] runs only with a valid key, and
//! checks the scope of its operation with [`AdminKey::authorize`].

use poem::Request;
use poem_openapi::{SecurityScheme, auth::Bearer};
use time::OffsetDateTime;

use super::{authentication, problem::Problem};
use crate::{
    domain::service_keys::{Authorized, KeyCaller},
    model::Scope,
};

/// A service key (`vk_…`), which the operator creates with `valet key create` for the app's backend; sent as
/// `Authorization: Bearer …`. Keep it on servers: no page can call these operations.
#[derive(SecurityScheme)]
#[oai(rename = "serviceKey", ty = "bearer", bearer_format = "vk_<id>_<secret>", checker = "authenticate")]
pub struct AdminKey(pub KeyCaller);

impl AdminKey {
    /// Allows an operation that needs this scope.
    ///
    /// # Errors
    /// 403 for a key without the scope.
    pub fn authorize(&self, scope: Scope, operation: &'static str) -> Result<Authorized, Problem> {
        Ok(self.0.authorize(scope, operation)?)
    }
}

/// Returns the service key of a request.
async fn authenticate(request: &Request, bearer: Bearer) -> poem::Result<KeyCaller> {
    let app = authentication::single_authorization(request)?;
    Ok(app.valet.service_keys.authenticate(&bearer.token, OffsetDateTime::now_utc()).await.map_err(Problem::from)?)
}
