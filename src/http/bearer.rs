//! The caller's identity: a handler that takes this value is authorised.

use poem::{Request, http::header, web::Data};
use poem_openapi::{SecurityScheme, auth::Bearer};
use time::OffsetDateTime;

use super::{
    limits,
    problem::{Code, Problem},
};
use crate::{
    domain::{audit, credentials::Caller},
    model::UserId,
    state::AppState,
    store::request_origin,
};

/// The access token of `POST /api/auth/login` or, where the server is set up for one, of an OpenID provider; sent as
/// `Authorization: Bearer …`. Paste it here without `Bearer`.
#[derive(SecurityScheme)]
#[oai(rename = "accessToken", ty = "bearer", bearer_format = "JWT", checker = "authenticate")]
pub struct Signed(pub Caller);

async fn authenticate(request: &Request, bearer: Bearer) -> poem::Result<Caller> {
    let (app, caller) = prove(request, bearer).await?;
    admit(app, caller.user)?;
    Ok(caller)
}

async fn prove(request: &Request, bearer: Bearer) -> poem::Result<(&AppState, Caller)> {
    let app =
        request.data::<AppState>().ok_or_else(|| poem::Error::from_status(poem::http::StatusCode::INTERNAL_SERVER_ERROR))?;
    // Between us and a proxy that reads the other one, two would be two callers.
    if request.headers().get_all(header::AUTHORIZATION).iter().count() > 1 {
        audit::token_refused("two Authorization headers");
        return Err(Problem::new(Code::TokenInvalid, "Send one `Authorization` header.").into());
    }
    let caller = app.valet.authenticate(&bearer.token, OffsetDateTime::now_utc()).await.map_err(Problem::from)?;
    tracing::Span::current().record("user", tracing::field::display(caller.user));
    Ok((app, caller))
}

/// Counts the request for the user that it proved to come from, and takes one of the places that the user may have.
///
/// # Errors
/// 429 for a user who asks too often, 503 for one of whom too much is under way.
pub fn admit(app: &AppState, user: UserId) -> Result<(), Problem> {
    request_origin::identify(user);
    app.valet.throttle().count_call(user)?;
    limits::seat(user)
}

// In the operations that end sessions: beyond what its user and network may do, each session has a few such calls of its own, which
// no flood in the user's name uses up.
/// The access token of `POST /api/auth/login` or, where the server is set up for one, of an OpenID provider; sent as
/// `Authorization: Bearer …`. Paste it here without `Bearer`.
#[derive(SecurityScheme)]
#[oai(rename = "accessToken", ty = "bearer", bearer_format = "JWT", checker = "authenticate_owner")]
pub struct Owner(pub Caller);

async fn authenticate_owner(request: &Request, bearer: Bearer) -> poem::Result<Caller> {
    let (app, caller) = prove(request, bearer).await?;
    if let Err(refused) = admit(app, caller.user) {
        app.valet.throttle().count_session_ending(caller).map_err(|_| refused)?;
    }
    Ok(caller)
}

/// The application, as handlers take it.
pub type Application<'a> = Data<&'a AppState>;
