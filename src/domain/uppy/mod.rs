//! Uploads by unmodified Uppy, which declares neither size nor digest, and does not confirm its forms.
//!
//! These uploads have a maximum size, which is reserved; the actual bytes are verified at confirm and the rest is released.
//! Forms, and the objects of Uppy's own S3 client, are written under `in/` and copied at confirm, because their URLs can write
//! more than once; the sweeper polls for them. Parts that this server completes are final where they are made.
//!
//! This file has Uppy's token, the validation of metadata, and forms; `parts` has the multipart calls of Companion's protocol,
//! `signing` the requests that Uppy's own S3 client sends, `part_limits` the bound on parts of undeclared length.

pub(super) mod part_limits;
mod parts;
mod signing;

use std::time::Duration;

use secrecy::SecretString;
use time::OffsetDateTime;

pub use crate::signer::SignedForm;

pub use self::{
    parts::{CompletePartsError, ListedPart, NamedPart},
    signing::{PartsCall, SignError, SignedCall, UppyCall},
};
use super::{
    Valet,
    arrival_polling::FIRST_POLL_DELAY,
    audit::{self},
    authentication::AuthenticateError,
    credentials::{Caller, TokenError, TokenOrigin},
    store_capabilities::{UnsupportedUpload, UploadClass},
    uploads::{DeclarationError, IssueError, validate_size},
};
use crate::{
    model::{Caption, ContentType, FileName, Image, ImageId, ImageState, Lifetimes, ObjectKey, UnverifiedUpload, Upload, UserId},
    store::{InsertOutcome, ReserveOutcome, StoreError},
};

/// Share of the quota that a multipart upload without a size reserves.
const QUOTA_SHARE: u64 = 16;
/// Forms that are confirmed at once if the quota has no room for another upload.
const MAX_FORMS_PER_CONFIRM: usize = 16;
/// Attempts to reserve: one, and more after the user's forms were confirmed.
const MAX_ATTEMPTS: usize = 5;

/// A file's metadata as Uppy sends it, not validated yet.
#[derive(Debug, Clone, Copy)]
pub struct UppyMetadata<'a> {
    /// See [`FileName`].
    pub file_name: &'a str,
    /// Media type; absent for file types that Uppy does not know.
    pub content_type: Option<&'a str>,
    /// Size in bytes, if the page adds it. A value that is not a number is ignored.
    pub size: Option<i64>,
    /// See [`Caption`].
    pub caption: Option<&'a str>,
}

/// A short-lived token for the path of Uppy's calls, and the limits of uploads.
#[derive(Debug)]
pub struct UppyToken {
    /// Token in the path of Uppy's calls.
    pub token: SecretString,
    /// Expiry of the token.
    pub expires_at: OffsetDateTime,
    /// Maximum size of a form upload in bytes.
    pub max_form_bytes: u64,
    /// Maximum size of a file in bytes.
    pub max_bytes: u64,
    /// Accepted media types.
    pub types: Vec<ContentType>,
}

impl Valet {
    /// Returns a token for the path of Uppy's calls. It is valid no longer than an access token, an upload's URL or the caller's
    /// provider token, and ends with the caller's session.
    ///
    /// # Errors
    /// [`UnsupportedUpload`] if the store does not take Uppy's uploads safely, or the token could not be signed.
    pub async fn issue_uppy_token(&self, caller: Caller, now: OffsetDateTime) -> Result<UppyToken, UnsupportedUpload> {
        self.capabilities.require_support(UploadClass::WithoutDigest)?;
        let now = now.replace_nanosecond(0).unwrap_or(now);
        let longest = now + self.tokens.ttl().min(self.uploads.url_ttl);
        let expires_at = match caller.origin {
            // If the session has ended, the token is expired.
            TokenOrigin::Session(session) => self
                .store
                .sessions
                .find_owned(caller.user, session, now)
                .await?
                .map_or(now, |session| longest.min(session.expires_at)),
            TokenOrigin::Provider { expires_at, .. } => longest.min(expires_at),
        };
        let token = self.tokens.issue_uppy_token(caller, now, expires_at);
        Ok(UppyToken {
            token: token.ok_or(StoreError::Credentials { reason: "failed to sign a token".to_owned() })?,
            expires_at,
            max_form_bytes: self.uploads.max_bytes,
            max_bytes: self.uploads.multipart_max_bytes,
            types: self.uploads.types.clone(),
        })
    }

    /// Returns the user of a token whose session has not ended.
    ///
    /// # Errors
    /// [`AuthenticateError`].
    pub async fn authenticate_uppy(&self, token: &str, now: OffsetDateTime) -> Result<UserId, AuthenticateError> {
        let refused = |reason: &str| audit::token_refused(reason);
        let (user, session) = self.tokens.verify_uppy_token(token, now).inspect_err(|error| match error {
            TokenError::Invalid => refused("invalid in a path"),
            TokenError::Expired => refused("expired in a path"),
        })?;
        let is_active = match session {
            Some(session) if self.local_accounts => self.is_session_active(user, session, now).await?,
            Some(_) => false,
            // The provider's sessions are unknown here, so the account decides.
            None => self.provider.is_some() && self.store.users.find(user).await?.is_some(),
        };
        if is_active {
            Ok(user)
        } else {
            refused("session ended");
            Err(AuthenticateError::SessionEnded)
        }
    }

    /// Returns a signed form for one file.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn issue_form(
        &self,
        user: UserId,
        metadata: &UppyMetadata<'_>,
        now: OffsetDateTime,
    ) -> Result<SignedForm, IssueError> {
        self.capabilities.require_support(UploadClass::WithoutDigest)?;
        let upload = self.validate_metadata(metadata, UnverifiedUpload::Form).map_err(IssueError::InvalidDeclaration)?;
        let id = ImageId::new();
        let key = ObjectKey::incoming(user, id);
        let form = self.objects.sign_form(&key, upload.content_type, upload.size, now, self.uploads.url_ttl)?;
        // No other form can be signed for this upload, so it expires with this one.
        let lifetimes = Lifetimes { created_at: now, expires_at: form.expires_at, urls_die_at: form.expires_at };
        self.reserve_and_insert(&Image::pending((user, id, key), upload, None, lifetimes), now + FIRST_POLL_DELAY, now).await?;
        self.arrival_poller.schedule();
        Ok(form)
    }

    /// Reserves quota and inserts the image. If there is no room, confirms the user's earlier forms first: each may hold much
    /// more than its bytes.
    async fn reserve_and_insert(&self, image: &Image, due: OffsetDateTime, now: OffsetDateTime) -> Result<(), IssueError> {
        let (user, bytes) = (image.user, image.reserved);
        for round in 0..MAX_ATTEMPTS {
            if self.reserve(user, &[image], now).await? == ReserveOutcome::Reserved {
                if self.insert_reserved(user, &[(image, due)]).await? == [InsertOutcome::Inserted] {
                    return Ok(());
                }
                return Err(StoreError::Contention { what: "an image's id" }.into());
            }
            if round == 0 {
                self.confirm_arrived_forms(user, now).await?;
            } else {
                self.explain_refusal(user, bytes).await?;
            }
        }
        Err(StoreError::Contention { what: "the user's reservations" }.into())
    }

    /// Confirms the user's forms that have arrived, the oldest first.
    ///
    /// # Errors
    /// [`IssueError::Throttled`] if the user has used up their calls to S3: each form takes two, one to find and one to read the
    /// object.
    async fn confirm_arrived_forms(&self, user: UserId, now: OffsetDateTime) -> Result<(), IssueError> {
        let open = self.store.images.list_owned_pending(user, None, 100).await?;
        let forms =
            open.iter().rev().filter(|image| image.upload.unverified == Some(UnverifiedUpload::Form)).map(|image| image.id);
        let forms: Vec<_> = forms.take(MAX_FORMS_PER_CONFIRM).collect();
        if !forms.is_empty() {
            self.throttle.count_s3_calls(user, 2 * u32::try_from(forms.len()).unwrap_or(u32::MAX / 2))?;
            self.confirm_all(user, &forms, now).await?;
        }
        Ok(())
    }

    /// Validates metadata. Returns every rule that it breaks.
    fn validate_metadata(
        &self,
        metadata: &UppyMetadata<'_>,
        unverified: UnverifiedUpload,
    ) -> Result<Upload, Vec<DeclarationError>> {
        let (max, bound) = match unverified {
            UnverifiedUpload::Form => (self.uploads.max_bytes, self.uploads.max_bytes),
            UnverifiedUpload::Parts => {
                let max = self.uploads.multipart_max_bytes;
                (max, (self.uploads.quota_bytes / QUOTA_SHARE).max(self.uploads.max_bytes).min(max))
            }
        };
        let size = metadata.size.map_or(Ok(bound), |size| validate_size(size, max));
        let file_name = FileName::parse(metadata.file_name).map_err(DeclarationError::FileName);
        let declared =
            metadata.content_type.filter(|text| !matches!(*text, "" | "null" | "undefined" | "application/octet-stream"));
        let content_type = match declared {
            Some(declared) => self.validate_type(declared),
            // Neither Uppy's list of extensions nor every browser knows all of these types.
            None => self.validate_type(ContentType::by_extension(metadata.file_name).map_or("", ContentType::as_str)),
        };
        let caption = metadata.caption.filter(|text| !matches!(*text, "null" | "undefined")).unwrap_or_default();
        let caption = Caption::parse(caption).map_err(DeclarationError::Caption);
        match (file_name, content_type, size, caption) {
            (Ok(file_name), Ok(content_type), Ok(size), Ok(caption)) => Ok(Upload {
                file_name,
                content_type,
                size,
                unverified: Some(unverified),
                sha256: None,
                caption,
                multipart: None,
                preview: None,
                thumb_hash: None,
            }),
            (file_name, content_type, size, caption) => {
                Err([file_name.err(), content_type.err(), size.err(), caption.err()].into_iter().flatten().collect())
            }
        }
    }

    /// Returns how long a multipart upload stays open: as long as a single PUT, because its bound is an estimate that costs
    /// quota.
    pub(super) fn uppy_parts_ttl(&self) -> Duration {
        self.uploads.ttl.min(self.uploads.multipart_ttl)
    }
}

/// Checks that a multipart upload is open at `now`, or ready.
fn require_open_or_ready(image: Image, now: OffsetDateTime) -> Result<Image, super::multipart::PartsError> {
    use super::multipart::PartsError;
    match (image.outcome(), image.rejection) {
        (ImageState::Ready, _) => Ok(image),
        (ImageState::Pending, _) if image.expires_at > now => Ok(image),
        (ImageState::Pending | ImageState::Expired, _) => Err(PartsError::Expired),
        (ImageState::Rejected, Some(why)) => Err(PartsError::Rejected(why)),
        _ => Err(PartsError::NotFound),
    }
}
