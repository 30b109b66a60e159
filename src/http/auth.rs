//! `/api/auth`: accounts and signing in.

use poem_openapi::{ApiResponse, Object, OpenApi, payload::Json};
use secrecy::ExposeSecret;
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    Tag,
    bearer::{Application, Owner, Signed},
    body::Body,
    client::Client,
    problem::{Code, Problem, session_ended},
    view::{self, whole_seconds},
};
use crate::{
    domain::{accounts, sessions::SignedIn},
    model::User as Account,
};

/// The problems of each operation, beside those of every operation of its shape.
pub const PROBLEMS: &[(&str, &[Code])] = &[
    ("sign_up", &[Code::LocalAccountsOnly, Code::SignupClosed, Code::EmailTaken, Code::InvalidEmail, Code::WeakPassword]),
    ("log_in", &[Code::LocalAccountsOnly, Code::InvalidCredentials]),
    ("get_me", &[]),
    ("change_password", &[Code::LocalAccountsOnly, Code::InvalidCredentials, Code::WeakPassword]),
    ("delete_account", &[Code::InvalidCredentials, Code::TokenTooOld]),
];

/// The operations.
pub struct Auth;

/// An email address and a password.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    /// The address; surrounding white space and letter case do not matter.
    email: String,
    /// At least 12 characters, at most 1024 bytes. Any characters, no rules of composition; what is guessed first (common
    /// passwords, repetitions, keyboard rows, the address itself) is refused. Compared after Unicode normalisation (NFKC).
    password: String,
}

/// A password and the one to come after it.
#[derive(Object, Deserialize)]
#[oai(rename_all = "camelCase", deny_unknown_fields)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PasswordChange {
    /// The one that holds now.
    current_password: String,
    /// The rules are those of signing up.
    new_password: String,
}

/// What proves that it is the owner who deletes.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountDeletion {
    /// The account's; absent where an identity provider knows it.
    #[serde(default, deserialize_with = "given")]
    password: Option<String>,
}

/// Absent is legal, null is not.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

#[derive(ApiResponse)]
enum DeletionResponse {
    /// The account is deleted.
    #[oai(status = 204)]
    Deleted,
}

/// A sign-in.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct Session {
    /// The access token: send it as `Authorization: Bearer …`.
    token: String,
    /// Always `Bearer`.
    token_type: String,
    /// Seconds until the access token expires.
    expires_in: u64,
    /// Good for one `POST /api/auth/refresh`, which gives the next. Keep it where secrets are kept.
    refresh_token: String,
    /// Seconds until the refresh token expires.
    refresh_expires_in: u64,
    /// Who signed in.
    user: User,
}

/// An account.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
struct User {
    /// Opaque; also the `sub` of the user's access tokens.
    id: String,
    /// As it was given at sign-up. Of an identity provider's user: what the provider says it has verified, else absent.
    email: Option<String>,
    /// When the account was made.
    created_at: OffsetDateTime,
    /// What the user holds; only in `GET /api/auth/me`.
    usage: Option<Usage>,
}

/// What a user holds.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Usage {
    /// Bytes that count against the quota: of ready images, of open uploads, and of deleted and failed ones until no URL can
    /// write them again.
    bytes: u64,
    /// Bytes the user may hold.
    quota_bytes: u64,
    /// Ready images.
    images: u64,
    /// Open uploads.
    pending: u64,
}

#[derive(ApiResponse)]
enum PasswordResponse {
    /// The new password holds.
    #[oai(status = 204)]
    Changed,
}

#[derive(ApiResponse)]
enum SignUpResponse {
    /// The account is made and signed in.
    #[oai(status = 201)]
    Created(Json<Session>),
}

impl From<SignedIn> for Session {
    fn from(signed_in: SignedIn) -> Self {
        Self {
            token: signed_in.token.expose_secret().to_owned(),
            token_type: "Bearer".to_owned(),
            expires_in: signed_in.expires_in.as_secs(),
            refresh_token: signed_in.refresh_token.expose_secret().to_owned(),
            refresh_expires_in: signed_in.refresh_expires_in.as_secs(),
            user: User::new(&signed_in.user, None),
        }
    }
}

impl User {
    fn new(user: &Account, usage: Option<Usage>) -> Self {
        let email = user.email.as_ref().map(|email| email.as_str().to_owned());
        Self { id: user.id.to_string(), email, created_at: whole_seconds(user.created_at), usage }
    }
}

#[OpenApi(prefix_path = "/api/auth", tag = "Tag::Accounts")]
impl Auth {
    /// Make an account
    ///
    /// Signs in at once. An address belongs to one account, whatever its letter case. Where the operator has closed sign-up
    /// (`signup_closed`), accounts that there are can log in.
    #[oai(path = "/signup", method = "post", operation_id = "sign_up")]
    async fn sign_up(&self, app: Application<'_>, client: Client, body: Body<Credentials>) -> Result<SignUpResponse, Problem> {
        let signed_in = app.valet.sign_up(&body.0.email, &body.0.password, &client.0, view::now()).await?;
        Ok(SignUpResponse::Created(Json(signed_in.into())))
    }

    /// Log in
    ///
    /// An unknown address and a wrong password get the same answer, after the same time.
    #[oai(path = "/login", method = "post", operation_id = "log_in")]
    async fn log_in(&self, app: Application<'_>, client: Client, body: Body<Credentials>) -> Result<Json<Session>, Problem> {
        let signed_in = app.valet.log_in(&body.0.email, &body.0.password, &client.0, view::now()).await?;
        Ok(Json(signed_in.into()))
    }

    /// Who am I
    ///
    /// The account and what it holds of its quota.
    #[oai(path = "/me", method = "get", operation_id = "get_me")]
    async fn me(&self, app: Application<'_>, caller: Signed) -> Result<Json<User>, Problem> {
        let (user, usage) = app.valet.me(caller.0.user).await?.ok_or_else(session_ended)?;
        let usage =
            Usage { bytes: usage.bytes, quota_bytes: app.valet.quota_bytes(), images: usage.images, pending: usage.pending };
        Ok(Json(User::new(&user, Some(usage))))
    }

    /// Delete the account
    ///
    /// With everything in it: images, open uploads, their bytes in every version, sessions. It cannot be undone. The account is
    /// closed when this answers: its tokens die at once on this server and within 30 seconds on every other, its address can be
    /// signed up again. Its bytes go within minutes; URLs that were given out before work no longer than they live. Give the
    /// `password`; a user of an identity provider has none and needs a token that is less than five minutes old instead
    /// (`token_too_old`: sign in anew).
    #[oai(path = "/me/delete", method = "post", operation_id = "delete_account")]
    async fn delete(
        &self,
        app: Application<'_>,
        caller: Owner,
        client: Client,
        body: Body<AccountDeletion>,
    ) -> Result<DeletionResponse, Problem> {
        app.valet.delete_account(caller.0, body.0.password.as_deref(), &client.0, view::now()).await?;
        Ok(DeletionResponse::Deleted)
    }

    /// Change the password
    ///
    /// Ends every other session in the same step: their access tokens die at once on this server and within 30 seconds on every
    /// other. On no answer, 503 or 504, repeat it with the same token: a change that was made is answered 204 again.
    #[oai(path = "/password", method = "put", operation_id = "change_password")]
    async fn change_password(
        &self,
        app: Application<'_>,
        caller: Owner,
        client: Client,
        body: Body<PasswordChange>,
    ) -> Result<PasswordResponse, Problem> {
        let change = accounts::PasswordChange { current: &body.0.current_password, new: &body.0.new_password };
        app.valet.change_password(caller.0, &change, &client.0, view::now()).await?;
        Ok(PasswordResponse::Changed)
    }
}
