//! `/api/auth/refresh`, `/logout` and `/sessions`: the life of a session.

use poem_openapi::{ApiResponse, Object, OpenApi, param::Path, payload::Json};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    auth::AuthSession,
    authentication::{Application, SessionOwner},
    body::Body,
    client::Client,
    operation::{Operation, RequestBody, SHORT_DEADLINE, Tag},
    problem::{Code, Problem},
    responses::whole_seconds,
};
use crate::{
    domain::{
        sessions::Session,
        throttle::names::{CALLS, REFRESH},
    },
    model::SessionId,
};

/// Metadata of the operations below.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        id: "refresh_session",
        body: RequestBody::CREDENTIALS,
        deadline: SHORT_DEADLINE,
        rate_limits: &[REFRESH],
        problems: &[&[Code::LocalAccountsOnly, Code::TokenInvalid, Code::SessionEnded, Code::AccountSuspended]],
    },
    Operation {
        id: "log_out",
        body: RequestBody::CREDENTIALS,
        deadline: SHORT_DEADLINE,
        rate_limits: &[REFRESH],
        problems: &[&[Code::LocalAccountsOnly, Code::TokenInvalid]],
    },
    Operation { id: "list_sessions", body: RequestBody::None, deadline: SHORT_DEADLINE, rate_limits: &[CALLS], problems: &[] },
    Operation {
        id: "end_session",
        body: RequestBody::None,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS],
        problems: &[&[Code::NotFound]],
    },
];

/// Handlers of sessions.
pub struct SessionsApi;

/// A refresh token.
#[derive(Object, Deserialize)]
#[oai(rename_all = "camelCase", deny_unknown_fields)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RefreshToken {
    /// The refresh token of the last sign-in or refresh.
    refresh_token: String,
}

/// One of the user's sessions.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
struct SessionSummary {
    /// Opaque; also the `sid` of its access tokens.
    id: String,
    /// The `User-Agent` of the client that signed in, cut to 200 characters.
    device: Option<String>,
    /// When the user signed in.
    created_at: OffsetDateTime,
    /// When it was last refreshed, or the user signed in.
    last_used_at: OffsetDateTime,
    /// When it ends unless it is refreshed.
    expires_at: OffsetDateTime,
    /// Whether it is the session of this request.
    current: bool,
}

/// The user's sessions.
#[derive(Object)]
struct SessionList {
    /// The newest first, at most a thousand.
    sessions: Vec<SessionSummary>,
}

#[derive(ApiResponse)]
enum LogOutResponse {
    /// The session has ended.
    #[oai(status = 204)]
    LoggedOut,
}

#[derive(ApiResponse)]
enum EndSessionResponse {
    /// The session has ended.
    #[oai(status = 204)]
    Ended,
}

impl SessionSummary {
    fn new(session: Session, current: Option<SessionId>) -> Self {
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
impl SessionsApi {
    /// Refresh the session
    ///
    /// Exchanges the refresh token for a new access token and the next refresh token; needs no access token. A refresh
    /// token is good for one exchange. On 503, 504 or no answer, repeat it: for 5 minutes, and while the next token is unused,
    /// the same `User-Agent` gets the same next token again, from any network. Any other second use within that time is
    /// refused (`token_invalid`) and the session continues. A later second use ends the session, since the token may have been
    /// stolen; so does one where the first exchange came from another `User-Agent` than the token's own and the next token is
    /// unused.
    /// On `session_ended`, and on `token_invalid` without a later token at hand, sign in again. A session ends a year after
    /// its sign-in at the latest.
    #[oai(path = "/refresh", method = "post", operation_id = "refresh_session")]
    async fn refresh(
        &self,
        app: Application<'_>,
        client: Client,
        body: Body<RefreshToken>,
    ) -> Result<Json<AuthSession>, Problem> {
        Ok(Json(app.valet.sessions.refresh(&body.refresh_token, &client, OffsetDateTime::now_utc()).await?.into()))
    }

    /// Sign out
    ///
    /// Ends the refresh token's session; needs no access token. A refresh token that was exchanged already ends its session
    /// too; an unknown one is refused (`token_invalid`). The session's access tokens are refused at once on this server and
    /// within 30 seconds on every other. Repeating it answers 204.
    #[oai(path = "/logout", method = "post", operation_id = "log_out")]
    async fn log_out(&self, app: Application<'_>, client: Client, body: Body<RefreshToken>) -> Result<LogOutResponse, Problem> {
        app.valet.sessions.log_out(&body.refresh_token, &client, OffsetDateTime::now_utc()).await?;
        Ok(LogOutResponse::LoggedOut)
    }

    /// List sessions
    ///
    /// The devices and browsers where the user is signed in. An account has at most a thousand sessions: beyond that, a sign-in
    /// ends the least recently used ones. A user of an identity provider has no sessions here: the list is empty.
    #[oai(path = "/sessions", method = "get", operation_id = "list_sessions")]
    async fn list(&self, app: Application<'_>, caller: SessionOwner) -> Result<Json<SessionList>, Problem> {
        let sessions = app.valet.sessions.list_sessions(caller.user, OffsetDateTime::now_utc()).await?;
        let sessions = sessions.into_iter().map(|session| SessionSummary::new(session, caller.session())).collect();
        Ok(Json(SessionList { sessions }))
    }

    /// End a session
    ///
    /// Signs out a lost device, or this one. The session's access tokens are refused at once on this server and within 30
    /// seconds on every other. Repeating it answers 404.
    #[oai(path = "/sessions/:id", method = "delete", operation_id = "end_session")]
    async fn end(&self, app: Application<'_>, caller: SessionOwner, id: Path<String>) -> Result<EndSessionResponse, Problem> {
        let id = SessionId::parse(&id).ok_or_else(Problem::not_found)?;
        let ended = app.valet.sessions.end_session(caller.user, id).await?;
        if ended { Ok(EndSessionResponse::Ended) } else { Err(Problem::not_found()) }
    }
}
