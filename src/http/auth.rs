//! `/api/auth`: sign-up, sign-in and the account itself.

use poem_openapi::{ApiResponse, Object, OpenApi, payload::Json};
use secrecy::ExposeSecret;
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    authentication::{Application, CurrentUser, SessionOwner},
    body::{self, Body},
    client::Client,
    operation::{Operation, RequestBody, SHORT_DEADLINE, Tag},
    problem::{Code, Problem},
    responses::whole_seconds,
};
use crate::{
    domain::{
        accounts,
        sessions::SignedIn,
        throttle::names::{ACCOUNT_FAILURES, CALLS, LOGIN, LOGIN_FAILURES, PASSWORD, SIGNUP},
    },
    model::{Usage, User},
};

/// Metadata of the operations below.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        id: "sign_up",
        body: RequestBody::CREDENTIALS,
        deadline: SHORT_DEADLINE,
        rate_limits: &[SIGNUP],
        problems: &[&[Code::LocalAccountsOnly, Code::SignupClosed, Code::EmailTaken, Code::InvalidEmail, Code::WeakPassword]],
    },
    Operation {
        id: "log_in",
        body: RequestBody::CREDENTIALS,
        deadline: SHORT_DEADLINE,
        rate_limits: &[LOGIN, LOGIN_FAILURES, ACCOUNT_FAILURES],
        problems: &[&[Code::LocalAccountsOnly, Code::InvalidCredentials, Code::AccountSuspended]],
    },
    Operation { id: "get_me", body: RequestBody::None, deadline: SHORT_DEADLINE, rate_limits: &[CALLS], problems: &[] },
    Operation {
        id: "change_password",
        body: RequestBody::CREDENTIALS,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS, LOGIN, LOGIN_FAILURES, PASSWORD],
        problems: &[&[Code::LocalAccountsOnly, Code::InvalidCredentials, Code::WeakPassword]],
    },
    Operation {
        id: "delete_account",
        body: RequestBody::CREDENTIALS,
        deadline: SHORT_DEADLINE,
        rate_limits: &[CALLS, LOGIN, LOGIN_FAILURES, PASSWORD],
        problems: &[&[Code::InvalidCredentials, Code::TokenTooOld]],
    },
];

/// Handlers of `/api/auth`, except sessions.
pub struct AuthApi;

/// An email address and a password.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub(super) struct SignInCredentials {
    /// The address; surrounding white space and letter case do not matter.
    email: String,
    /// At least 12 characters, at most 1024 bytes. Any characters are accepted, in any mix; common passwords, repetitions,
    /// keyboard rows and the address itself are refused. Compared after Unicode normalisation (NFKC).
    password: String,
}

/// The current and the new password.
#[derive(Object, Deserialize)]
#[oai(rename_all = "camelCase", deny_unknown_fields)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PasswordChange {
    /// The current password.
    current_password: String,
    /// The new password, by the rules for signing up.
    new_password: String,
}

/// Proof that the owner is asking.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountDeletion {
    /// The account's password; absent for a user of an identity provider or of the app.
    #[serde(default, deserialize_with = "body::present")]
    password: Option<String>,
}

#[derive(ApiResponse)]
enum DeletionResponse {
    /// The account is deleted.
    #[oai(status = 204)]
    Deleted,
}

/// The tokens of a session, and its user.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct AuthSession {
    /// The access token: send it as `Authorization: Bearer …`.
    token: String,
    /// Always `Bearer`.
    token_type: String,
    /// Seconds until the access token expires.
    expires_in: u64,
    /// Good for one `POST /api/auth/refresh`, which returns the next one. Store it as a secret.
    refresh_token: String,
    /// Seconds until the refresh token expires.
    refresh_expires_in: u64,
    /// The user who signed in.
    user: UserAccount,
}

/// A user.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
pub(super) struct UserAccount {
    /// Opaque; also the `sub` of the user's access tokens.
    id: String,
    /// As given at sign-up. For a user of an identity provider: the address that the provider has verified, else absent. For a
    /// user of the app: the address that the app's backend gave, else absent.
    email: Option<String>,
    /// When the account was created.
    created_at: OffsetDateTime,
    /// The storage used; only in `GET /api/auth/me`.
    usage: Option<StorageUsage>,
}

/// A user's storage.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub(super) struct StorageUsage {
    /// Bytes counted against the quota: ready images, open uploads, and deleted or failed uploads until their URLs have expired.
    bytes: u64,
    /// The quota, in bytes.
    quota_bytes: u64,
    /// Number of ready images.
    images: u64,
    /// Number of open uploads.
    pending: u64,
}

#[derive(ApiResponse)]
enum PasswordResponse {
    /// The password is changed.
    #[oai(status = 204)]
    Changed,
}

#[derive(ApiResponse)]
enum SignUpResponse {
    /// The account is created and the user is signed in.
    #[oai(status = 201)]
    Created(Json<AuthSession>),
}

impl From<SignedIn> for AuthSession {
    fn from(signed_in: SignedIn) -> Self {
        Self {
            token: signed_in.token.expose_secret().to_owned(),
            token_type: "Bearer".to_owned(),
            expires_in: signed_in.expires_in.as_secs(),
            refresh_token: signed_in.refresh_token.expose_secret().to_owned(),
            refresh_expires_in: signed_in.refresh_expires_in.as_secs(),
            user: UserAccount::new(&signed_in.user, None),
        }
    }
}

impl StorageUsage {
    pub(super) fn new(usage: Usage, quota_bytes: u64) -> Self {
        Self { bytes: usage.bytes, quota_bytes, images: usage.images, pending: usage.pending }
    }
}

impl UserAccount {
    pub(super) fn new(user: &User, usage: Option<StorageUsage>) -> Self {
        let email = user.email.as_ref().map(|email| email.as_str().to_owned());
        Self { id: user.id.to_string(), email, created_at: whole_seconds(user.created_at), usage }
    }
}

#[OpenApi(prefix_path = "/api/auth", tag = "Tag::Accounts")]
impl AuthApi {
    /// Create an account
    ///
    /// The answer signs the user in. An address belongs to one account, whatever its letter case. Where the operator has closed
    /// sign-up (`signup_closed`), existing accounts can still sign in.
    #[oai(path = "/signup", method = "post", operation_id = "sign_up")]
    async fn sign_up(
        &self,
        app: Application<'_>,
        client: Client,
        body: Body<SignInCredentials>,
    ) -> Result<SignUpResponse, Problem> {
        let signed_in = app.valet.accounts.sign_up(&body.email, &body.password, &client, OffsetDateTime::now_utc()).await?;
        Ok(SignUpResponse::Created(Json(signed_in.into())))
    }

    /// Sign in
    ///
    /// An unknown address and a wrong password get the same answer, after the same time.
    #[oai(path = "/login", method = "post", operation_id = "log_in")]
    async fn log_in(
        &self,
        app: Application<'_>,
        client: Client,
        body: Body<SignInCredentials>,
    ) -> Result<Json<AuthSession>, Problem> {
        let signed_in = app.valet.accounts.log_in(&body.email, &body.password, &client, OffsetDateTime::now_utc()).await?;
        Ok(Json(signed_in.into()))
    }

    /// Get the signed-in user
    ///
    /// The user, and how much of the quota is used.
    #[oai(path = "/me", method = "get", operation_id = "get_me")]
    async fn me(&self, app: Application<'_>, caller: CurrentUser) -> Result<Json<UserAccount>, Problem> {
        let (user, usage) = app.valet.accounts.user_with_usage(caller.user).await?.ok_or_else(Problem::session_ended)?;
        let quota_bytes = usage.quota(app.valet.uploads.default_quota_bytes());
        let usage = StorageUsage::new(usage, quota_bytes);
        Ok(Json(UserAccount::new(&user, Some(usage))))
    }

    /// Delete the account
    ///
    /// Permanently deletes the account with its images, open uploads and sessions; it cannot be undone. After the answer its
    /// tokens are refused, at once on this server and within 30 seconds on every other, and its address can sign up again. The
    /// bytes are deleted from the bucket within minutes, in every version; presigned URLs issued earlier expire as usual. Send the
    /// `password`. A user of an identity provider or of the app has none and needs an access token that is less than five minutes
    /// old (`token_too_old`: sign in again).
    #[oai(path = "/me/delete", method = "post", operation_id = "delete_account")]
    async fn delete(
        &self,
        app: Application<'_>,
        caller: SessionOwner,
        client: Client,
        body: Body<AccountDeletion>,
    ) -> Result<DeletionResponse, Problem> {
        app.valet.account_deletion.delete_account(*caller, body.password.as_deref(), &client, OffsetDateTime::now_utc()).await?;
        Ok(DeletionResponse::Deleted)
    }

    /// Change the password
    ///
    /// Ends every other session in the same step: their access tokens are refused at once on this server and within 30 seconds
    /// on every other. On 503, 504 or no answer, repeat it with the same token: if the change was made, the repeat answers 204.
    #[oai(path = "/password", method = "put", operation_id = "change_password")]
    async fn change_password(
        &self,
        app: Application<'_>,
        caller: SessionOwner,
        client: Client,
        body: Body<PasswordChange>,
    ) -> Result<PasswordResponse, Problem> {
        let change = accounts::PasswordChange { current: &body.current_password, new: &body.new_password };
        app.valet.accounts.change_password(*caller, &change, &client, OffsetDateTime::now_utc()).await?;
        Ok(PasswordResponse::Changed)
    }
}
