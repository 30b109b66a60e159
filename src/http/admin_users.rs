//! `/api/admin`: calls of the app's backend, with a service key.

use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};
use secrecy::ExposeSecret;
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    admin_authentication::AdminKey,
    auth::{StorageUsage, UserAccount},
    authentication::Application,
    body::{self, Body},
    image_page::{ImagePage, PageWriter},
    operation::{Operation, RequestBody, SHORT_DEADLINE, Tag},
    pagination::{self, Listing},
    parameters::{parse_image_id, parse_user_id},
    problem::{Code, Problem},
    raw_json::RawJson,
    responses::whole_seconds,
};
use crate::{
    domain::{
        app_users::NewToken,
        throttle::names::SERVICE_KEY,
        user_administration::{AdministeredUser, UserQuery},
    },
    model::{GalleryOrder, Scope},
};

/// Returns the metadata of an operation for the app's backend.
const fn operation(id: &'static str, body: RequestBody, problems: &'static [&'static [Code]]) -> Operation {
    Operation { id, body, deadline: SHORT_DEADLINE, rate_limits: &[SERVICE_KEY], problems }
}

/// Metadata of the operations below.
pub(super) const OPERATIONS: &[Operation] = &[
    operation(
        "create_app_token",
        RequestBody::SINGLE,
        &[&[Code::InvalidSubject, Code::InvalidLifetime, Code::InvalidEmail, Code::AccountSuspended]],
    ),
    operation("list_users", RequestBody::None, &[&[Code::InvalidCursor, Code::InvalidEmail]]),
    operation("get_user", RequestBody::None, &[&[Code::NotFound]]),
    operation("delete_user", RequestBody::None, &[&[Code::NotFound]]),
    operation("set_user_quota", RequestBody::SINGLE, &[&[Code::NotFound, Code::InvalidQuota]]),
    operation("reset_user_quota", RequestBody::None, &[&[Code::NotFound]]),
    operation("suspend_user", RequestBody::None, &[&[Code::NotFound]]),
    operation("resume_user", RequestBody::None, &[&[Code::NotFound]]),
    operation("list_user_images", RequestBody::None, &[&[Code::NotFound, Code::InvalidCursor]]),
    operation("delete_user_image", RequestBody::None, &[&[Code::NotFound]]),
];

/// Handlers of `/api/admin`.
pub struct AdminApi;

/// A user of the app who needs an access token.
#[derive(Object, Deserialize)]
#[oai(rename_all = "camelCase", deny_unknown_fields)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AppTokenRequest {
    /// The app's own id of the user, from 1 to 255 characters, compared byte for byte. The same subject is the same user.
    subject: String,
    /// Lifetime of the token in seconds, from 60 to 86400. By default that of the server's access tokens, at most a day.
    #[serde(default, deserialize_with = "body::present_unsigned")]
    expires_in: Option<u64>,
    /// The user's email address, which replaces the recorded address; absent to keep that. It is a label: it need not be unique,
    /// does not sign in, and does not connect this user with another account of the same address.
    #[serde(default, deserialize_with = "body::present")]
    email: Option<String>,
}

/// An access token of a user of the app. It has no refresh token: create another one before it expires.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct AppToken {
    /// The access token: the client sends it as `Authorization: Bearer …`.
    token: String,
    /// Always `Bearer`.
    token_type: String,
    /// Seconds until the access token expires.
    expires_in: u64,
    /// The user of the token.
    user: UserAccount,
}

/// A user, as the app's backend sees them.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
struct AdminUser {
    /// Opaque; also the `sub` of the user's access tokens.
    id: String,
    /// The address of the account; unique for local accounts only.
    email: Option<String>,
    /// Issuer of the user's identity: `app` for a user of the app, else the identity provider's issuer. Absent for a local account.
    issuer: Option<String>,
    /// The user's name at the `issuer`. Absent for a local account.
    subject: Option<String>,
    /// When the account was created.
    created_at: OffsetDateTime,
    /// When the account was suspended. Absent for one that is not.
    suspended_at: Option<OffsetDateTime>,
    /// The storage used, and the quota that applies.
    usage: StorageUsage,
}

/// A page of users.
#[derive(Object)]
#[oai(rename_all = "camelCase", skip_serializing_if_is_none)]
struct UserPage {
    /// In the order of their creation.
    users: Vec<AdminUser>,
    /// Send it as `cursor` for the next page; absent on the last.
    next_cursor: Option<String>,
}

/// A user's quota.
#[derive(Object, Deserialize)]
#[oai(deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub(super) struct UserQuota {
    /// Bytes, from 0 to 9007199254740991.
    #[serde(deserialize_with = "body::unsigned")]
    bytes: u64,
}

#[derive(ApiResponse)]
enum UserDeletionResponse {
    /// The account is deleted.
    #[oai(status = 204)]
    Deleted,
}

#[derive(ApiResponse)]
enum UserImagesResponse {
    /// A page of the user's gallery.
    #[oai(status = 200)]
    Page(RawJson<ImagePage>),
}

#[derive(ApiResponse)]
enum ImageDeletionResponse {
    /// The image or upload is deleted, with its bytes.
    #[oai(status = 204)]
    Deleted,
}

impl From<AdministeredUser> for AdminUser {
    fn from(administered: AdministeredUser) -> Self {
        let AdministeredUser { user, identity, suspended_at, usage, quota_bytes } = administered;
        let (issuer, subject) = identity.map(|identity| (identity.issuer, identity.subject)).unzip();
        Self {
            id: user.id.to_string(),
            email: user.email.as_ref().map(|email| email.as_str().to_owned()),
            issuer,
            subject,
            created_at: whole_seconds(user.created_at),
            suspended_at: suspended_at.map(whole_seconds),
            usage: StorageUsage::new(usage, quota_bytes),
        }
    }
}

#[OpenApi(prefix_path = "/api/admin", tag = "Tag::Backend")]
impl AdminApi {
    /// Create an access token for a user of the app
    ///
    /// Signs in a user whom the app's backend has authenticated. A new subject creates the user; concurrent calls create one. The
    /// token is used like any other, and its session is in the user's list of sessions; it ends with the token, when the user
    /// ends it, and when the user is deleted or suspended. A user of a local account or of an identity provider is another user,
    /// whatever the address. Scope: `tokens:create`.
    #[oai(path = "/tokens", method = "post", operation_id = "create_app_token")]
    async fn create_token(
        &self,
        app: Application<'_>,
        key: AdminKey,
        body: Body<AppTokenRequest>,
    ) -> Result<Json<AppToken>, Problem> {
        let key = key.authorize(Scope::TokensCreate, "create_app_token")?;
        let new = NewToken { subject: &body.subject, expires_in: body.expires_in, email: body.email.as_deref() };
        let created = app.valet.app_users.create_token(&key, new, OffsetDateTime::now_utc()).await?;
        Ok(Json(AppToken {
            token: created.token.expose_secret().to_owned(),
            token_type: "Bearer".to_owned(),
            expires_in: created.expires_in.as_secs(),
            user: UserAccount::new(&created.account.user, None),
        }))
    }

    /// List users
    ///
    /// All users, or those of one `subject` or one `email`; in the order of their creation. Scope: `users:read`.
    #[oai(path = "/users", method = "get", operation_id = "list_users")]
    async fn list(
        &self,
        app: Application<'_>,
        key: AdminKey,
        /// Users on a page, from 1 to 100.
        limit: Query<Option<i64>>,
        /// The `nextCursor` of the previous page.
        cursor: Query<Option<String>>,
        /// A user's name in the app, or at the identity provider.
        subject: Query<Option<String>>,
        /// An email address; letter case does not matter. Several users may have it.
        email: Query<Option<String>>,
    ) -> Result<Json<UserPage>, Problem> {
        let key = key.authorize(Scope::UsersRead, "list_users")?;
        let query = UserQuery {
            subject: subject.0.as_deref(),
            email: email.0.as_deref(),
            after: pagination::parse_user_cursor(cursor.0.as_deref())?,
            limit: pagination::parse_limit(limit.0)?,
        };
        let page = app.valet.user_administration.list(&key, query).await?;
        let users = page.users.into_iter().map(AdminUser::from).collect();
        Ok(Json(UserPage { users, next_cursor: page.next.map(pagination::encode_user_cursor) }))
    }

    /// Get a user
    ///
    /// The user, and how much of the quota is used. Scope: `users:read`.
    #[oai(path = "/users/:user", method = "get", operation_id = "get_user")]
    async fn get(&self, app: Application<'_>, key: AdminKey, user: Path<String>) -> Result<Json<AdminUser>, Problem> {
        let key = key.authorize(Scope::UsersRead, "get_user")?;
        Ok(Json(app.valet.user_administration.get(&key, parse_user_id(&user)?).await?.into()))
    }

    /// Delete a user
    ///
    /// As `POST /api/auth/me/delete`: permanently deletes the account with its images, open uploads and sessions. A repeat answers
    /// 404. A token for the same subject creates a new user. Scope: `users:write`.
    #[oai(path = "/users/:user", method = "delete", operation_id = "delete_user")]
    async fn delete(&self, app: Application<'_>, key: AdminKey, user: Path<String>) -> Result<UserDeletionResponse, Problem> {
        let key = key.authorize(Scope::UsersWrite, "delete_user")?;
        let deleted =
            app.valet.account_deletion.delete_for_backend(&key, parse_user_id(&user)?, OffsetDateTime::now_utc()).await?;
        if deleted { Ok(UserDeletionResponse::Deleted) } else { Err(Problem::user_not_found()) }
    }

    /// Set a user's quota
    ///
    /// Replaces the server's quota for this user, at once. A quota below what is used refuses new uploads and deletes nothing.
    /// Scope: `users:write`.
    #[oai(path = "/users/:user/quota", method = "put", operation_id = "set_user_quota")]
    async fn set_quota(
        &self,
        app: Application<'_>,
        key: AdminKey,
        user: Path<String>,
        body: Body<UserQuota>,
    ) -> Result<Json<AdminUser>, Problem> {
        let key = key.authorize(Scope::UsersWrite, "set_user_quota")?;
        Ok(Json(app.valet.user_administration.set_quota(&key, parse_user_id(&user)?, Some(body.bytes)).await?.into()))
    }

    /// Reset a user's quota
    ///
    /// The server's quota applies to the user again. Scope: `users:write`.
    #[oai(path = "/users/:user/quota", method = "delete", operation_id = "reset_user_quota")]
    async fn reset_quota(&self, app: Application<'_>, key: AdminKey, user: Path<String>) -> Result<Json<AdminUser>, Problem> {
        let key = key.authorize(Scope::UsersWrite, "reset_user_quota")?;
        Ok(Json(app.valet.user_administration.set_quota(&key, parse_user_id(&user)?, None).await?.into()))
    }

    /// Suspend a user
    ///
    /// Every call of the user is answered 403 `account_suspended`: at once on this server, within 30 seconds on every other.
    /// Presigned URLs issued earlier expire as usual. Nothing is deleted, and no session ends. May be repeated. Scope:
    /// `users:write`.
    #[oai(path = "/users/:user/suspend", method = "post", operation_id = "suspend_user")]
    async fn suspend(&self, app: Application<'_>, key: AdminKey, user: Path<String>) -> Result<Json<AdminUser>, Problem> {
        let key = key.authorize(Scope::UsersWrite, "suspend_user")?;
        Ok(Json(app.valet.user_administration.suspend(&key, parse_user_id(&user)?, OffsetDateTime::now_utc()).await?.into()))
    }

    /// Resume a user
    ///
    /// Ends the suspension: sessions that have not expired meanwhile are active again, at once on this server and within 30 seconds
    /// on every other. May be repeated. Scope: `users:write`.
    #[oai(path = "/users/:user/resume", method = "post", operation_id = "resume_user")]
    async fn resume(&self, app: Application<'_>, key: AdminKey, user: Path<String>) -> Result<Json<AdminUser>, Problem> {
        let key = key.authorize(Scope::UsersWrite, "resume_user")?;
        Ok(Json(app.valet.user_administration.resume(&key, parse_user_id(&user)?).await?.into()))
    }

    /// List a user's images
    ///
    /// As the user sees them, newest first, with presigned GET URLs. Scope: `images:read`.
    #[oai(path = "/users/:user/images", method = "get", operation_id = "list_user_images")]
    async fn list_images(
        &self,
        app: Application<'_>,
        key: AdminKey,
        user: Path<String>,
        /// Images on a page, from 1 to 100.
        limit: Query<Option<i64>>,
        /// The `nextCursor` of the previous page.
        cursor: Query<Option<String>>,
    ) -> Result<UserImagesResponse, Problem> {
        let key = key.authorize(Scope::ImagesRead, "list_user_images")?;
        let (user, limit) = (parse_user_id(&user)?, pagination::parse_limit(limit.0)?);
        let after = pagination::parse_cursor(cursor.0.as_deref(), Listing::Gallery(user))?;
        app.valet.user_administration.require(&key, user).await?;
        let found = app.valet.gallery.page(user, GalleryOrder::Uploaded, after, limit, OffsetDateTime::now_utc()).await?;
        Ok(UserImagesResponse::Page(PageWriter::new(&found, Listing::Gallery(user), limit).write()?))
    }

    /// Delete a user's image or open upload
    ///
    /// Deletes it permanently, as its owner would. Repeating it answers 204 while an upload URL is still valid, then 404. Scope:
    /// `images:delete`.
    #[oai(path = "/users/:user/images/:image", method = "delete", operation_id = "delete_user_image")]
    async fn delete_image(
        &self,
        app: Application<'_>,
        key: AdminKey,
        user: Path<String>,
        image: Path<String>,
    ) -> Result<ImageDeletionResponse, Problem> {
        let key = key.authorize(Scope::ImagesDelete, "delete_user_image")?;
        let (user, image) = (parse_user_id(&user)?, parse_image_id(&image)?);
        app.valet.deletion.delete_for_backend(&key, user, image, OffsetDateTime::now_utc()).await?;
        Ok(ImageDeletionResponse::Deleted)
    }
}
