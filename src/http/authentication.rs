//! The caller's identity. A handler with a parameter of type [`CurrentUser`] or [`SessionOwner`] runs only with a valid access
//! token.

use std::ops::Deref;

use poem::{FromRequest, Request, RequestBody, http::header, web::Data};
use poem_openapi::{
    SecurityScheme,
    auth::{Bearer, BearerAuthorization as _},
};
use secrecy::SecretString;
use time::OffsetDateTime;

use super::{
    middleware::permits,
    problem::{Code, Problem},
};
use crate::{
    domain::{audit, credentials::Caller, request_origin},
    model::UserId,
    state::AppState,
};

/// The access token of `POST /api/auth/login` or, where the server is set up for one, of an OpenID provider; sent as
/// `Authorization: Bearer …`. Paste it here without `Bearer`.
#[derive(SecurityScheme)]
#[oai(rename = "accessToken", ty = "bearer", bearer_format = "JWT", checker = "authenticate")]
pub struct CurrentUser(pub Caller);

impl Deref for CurrentUser {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

/// Returns the caller of a request, within the user's rate limit.
async fn authenticate(request: &Request, bearer: Bearer) -> poem::Result<Caller> {
    let (app, caller) = verify(request, bearer).await?;
    admit(app, caller.user)?;
    Ok(caller)
}

/// Verifies the token, and records its user in the request's span.
async fn verify(request: &Request, bearer: Bearer) -> poem::Result<(&AppState, Caller)> {
    let app = single_authorization(request)?;
    let caller = app.valet.sessions.authenticate(&bearer.token, OffsetDateTime::now_utc()).await.map_err(Problem::from)?;
    tracing::Span::current().record("user", tracing::field::display(caller.user));
    Ok((app, caller))
}

/// The access token of a request, for a response that checks the token again while it is sent.
pub struct AccessToken(pub SecretString);

impl<'a> FromRequest<'a> for AccessToken {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        Ok(Self(Bearer::from_request(request)?.token.into()))
    }
}

/// Returns the application, unless the request has several `Authorization` headers: a proxy might use one, and this server another.
pub(super) fn single_authorization(request: &Request) -> poem::Result<&AppState> {
    let app =
        request.data::<AppState>().ok_or_else(|| poem::Error::from_status(poem::http::StatusCode::INTERNAL_SERVER_ERROR))?;
    if request.headers().get_all(header::AUTHORIZATION).iter().count() > 1 {
        audit::log_refused_token("two Authorization headers");
        return Err(Problem::new(Code::TokenInvalid, "Send one `Authorization` header.").into());
    }
    Ok(app)
}

/// Counts the request for its user, and acquires a permit of the user.
///
/// # Errors
/// 429 beyond the user's rate limit, 503 when the user holds as many permits as one user may.
pub fn admit(app: &AppState, user: UserId) -> Result<(), Problem> {
    request_origin::identify(user);
    app.valet.throttle.count_call(user)?;
    permits::acquire_for_user(user)
}

// For the operations that end sessions: beyond the limits of its user and network, each session has a few such calls of its own,
// which a flood in the user's name does not use up.
/// The access token of `POST /api/auth/login` or, where the server is set up for one, of an OpenID provider; sent as
/// `Authorization: Bearer …`. Paste it here without `Bearer`.
#[derive(SecurityScheme)]
#[oai(rename = "accessToken", ty = "bearer", bearer_format = "JWT", checker = "authenticate_owner")]
pub struct SessionOwner(pub Caller);

impl Deref for SessionOwner {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

/// Returns the caller of a request that ends sessions: beyond the user's rate limit, each session has a few such requests.
async fn authenticate_owner(request: &Request, bearer: Bearer) -> poem::Result<Caller> {
    let (app, caller) = verify(request, bearer).await?;
    if let Err(problem) = admit(app, caller.user) {
        app.valet.throttle.count_session_ending(caller).map_err(|_| problem)?;
    }
    Ok(caller)
}

/// The application, as a parameter of handlers.
pub type Application<'a> = Data<&'a AppState>;
