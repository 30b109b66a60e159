//! `/api/auth/refresh`, `/logout` and `/sessions`: what becomes of a sign-in.

use poem_openapi::{ApiResponse, Object, OpenApi, param::Path, payload::Json};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    Tag,
    auth::Session,
    bearer::{Application, Owner},
    body::Body,
    client::Client,
    problem::{Code, Problem},
    view::{self, whole_seconds},
};
use crate::{model::SessionId, store};

/// The problems of each operation, beside those of every operation of its shape.
pub const PROBLEMS: &[(&str, &[Code])] = &[
    ("refresh_session", &[Code::LocalAccountsOnly, Code::TokenInvalid, Code::SessionEnded]),
    ("log_out", &[Code::LocalAccountsOnly, Code::TokenInvalid]),
    ("list_sessions", &[]),
    ("end_session", &[Code::NotFound]),
];

/// The operations.
pub struct Sessions;

/// A refresh token.
#[derive(Object, Deserialize)]
#[oai(rename_all = "camelCase", deny_unknown_fields)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RefreshToken {
    /// Of the last sign-in or refresh.
    refresh_token: String,
}

/// One of the caller's sessions.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
struct SessionSummary {
    /// Opaque; also the `sid` of its access tokens.
    id: String,
    /// What the client that signed in called itself: its `User-Agent`, cut to 200 characters.
    device: Option<String>,
    /// When it signed in.
    created_at: OffsetDateTime,
    /// When it signed in or refreshed last.
    last_used_at: OffsetDateTime,
    /// When it ends unless it is refreshed.
    expires_at: OffsetDateTime,
    /// Whether it is the one that asks.
    current: bool,
}

/// The caller's sessions.
#[derive(Object)]
struct SessionList {
    /// The newest first, at most a thousand.
    sessions: Vec<SessionSummary>,
}

#[derive(ApiResponse)]
enum LogOutResponse {
    /// The session is over.
    #[oai(status = 204)]
    LoggedOut,
}

#[derive(ApiResponse)]
enum EndSessionResponse {
    /// The session is over.
    #[oai(status = 204)]
    Ended,
}

impl SessionSummary {
    fn new(session: store::Session, current: Option<SessionId>) -> Self {
        Self {
            id: session.id.to_string(),
            device: session.device,
            created_at: whole_seconds(session.created_at),
            last_used_at: whole_seconds(session.last_used_at),
            expires_at: whole_seconds(session.expires_at),
            current: Some(session.id) == current,
        }
    }
}

#[OpenApi(prefix_path = "/api/auth", tag = "Tag::Accounts")]
impl Sessions {
    /// Refresh a sign-in
    ///
    /// Exchanges the refresh token for a fresh access token and the next refresh token; needs no access token. A refresh
    /// token is good for one exchange. On no answer, 503 or 504, repeat: for 5 minutes, and while the next token is unused, the
    /// same `User-Agent` is given the same next token again, from whatever network. Any other second use within that time is
    /// refused (`token_invalid`) and the session goes on; after it, or where another `User-Agent` than the one that had the
    /// token was the first to exchange it and the next token is unused, a second use ends the session, since somebody else may
    /// hold the token.
    /// `session_ended`, and `token_invalid` where no later token is at hand: log in again. A session ends a year after its
    /// sign-in at the latest.
    #[oai(path = "/refresh", method = "post", operation_id = "refresh_session")]
    async fn refresh(&self, app: Application<'_>, client: Client, body: Body<RefreshToken>) -> Result<Json<Session>, Problem> {
        Ok(Json(app.valet.refresh(&body.0.refresh_token, &client.0, view::now()).await?.into()))
    }

    /// Log out
    ///
    /// Ends the refresh token's session; needs no access token. Tokens that were exchanged since end it, too; one that the
    /// session does not know does nothing (`token_invalid`). Its access tokens die at once on this server and within 30 seconds
    /// on every other. Repeating it answers 204.
    #[oai(path = "/logout", method = "post", operation_id = "log_out")]
    async fn log_out(&self, app: Application<'_>, client: Client, body: Body<RefreshToken>) -> Result<LogOutResponse, Problem> {
        app.valet.log_out(&body.0.refresh_token, &client.0, view::now()).await?;
        Ok(LogOutResponse::LoggedOut)
    }

    /// List sessions
    ///
    /// Where the caller is signed in. An account has at most a thousand sessions: where a sign-in makes more, those end that
    /// were not used for longest. An identity provider's user has no sessions here: the list is empty.
    #[oai(path = "/sessions", method = "get", operation_id = "list_sessions")]
    async fn list(&self, app: Application<'_>, caller: Owner) -> Result<Json<SessionList>, Problem> {
        let sessions = app.valet.sessions(caller.0.user, view::now()).await?;
        let sessions = sessions.into_iter().map(|session| SessionSummary::new(session, caller.0.session())).collect();
        Ok(Json(SessionList { sessions }))
    }

    /// End a session
    ///
    /// Signs a lost device out, or this one. Its access tokens die at once on this server and within 30 seconds on every
    /// other. A repeat answers 404.
    #[oai(path = "/sessions/:id", method = "delete", operation_id = "end_session")]
    async fn end(&self, app: Application<'_>, caller: Owner, id: Path<String>) -> Result<EndSessionResponse, Problem> {
        let id = SessionId::parse(&id).ok_or_else(Problem::not_found)?;
        let ended = app.valet.end_session(caller.0.user, id).await?;
        if ended { Ok(EndSessionResponse::Ended) } else { Err(Problem::not_found()) }
    }
}
