//! Who calls: obtaining this value is the authorisation.

use poem::{Request, web::Data};
use poem_openapi::{SecurityScheme, auth::Bearer};
use time::OffsetDateTime;

use super::problem::Problem;
use crate::{app::App, domain::credentials::Caller};

/// The access token of `POST /api/auth/login`, sent as `Authorization: Bearer …`.
#[derive(SecurityScheme)]
#[oai(rename = "accessToken", ty = "bearer", bearer_format = "JWT", checker = "authenticate")]
pub struct Signed(pub Caller);

async fn authenticate(request: &Request, bearer: Bearer) -> poem::Result<Caller> {
    let app = request.data::<App>().ok_or_else(|| poem::Error::from_status(poem::http::StatusCode::INTERNAL_SERVER_ERROR))?;
    let caller = app.valet.authenticate(&bearer.token, OffsetDateTime::now_utc()).await.map_err(Problem::from)?;
    tracing::Span::current().record("user", tracing::field::display(caller.user));
    Ok(caller)
}

/// The application, as handlers take it.
pub type Application<'a> = Data<&'a App>;
