//! Opening uploads: reserve, insert, sign; what is known already is found instead.

use std::time::Duration;

use time::OffsetDateTime;

use super::{DeclaredUpload, IssueError, Issued, PresignedPuts, RenewError, Ticket};
use crate::{
    domain::{Valet, inspection::Inspection, store_capabilities::UploadClass},
    model::{Idempotency, IdempotencyKey, Image, ImageId, Lifetimes, ObjectKey, Sha256, Upload, UserId},
    store::{InsertOutcome, ReserveOutcome, StoreError},
};

/// Races with a confirm, a delete or a twin are settled by looking again; more than this is a fault.
const MAX_ATTEMPTS: usize = 5;
/// How long a key finds its upload.
const IDEMPOTENCY_KEY_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// A declared upload, by its place among those of the request.
pub(super) struct UploadRequest {
    pub(super) at: usize,
    pub(super) upload: Upload,
    sha256: Sha256,
    pub(super) idempotency: Option<Idempotency>,
}

/// One answer for each upload of the request.
pub(super) type Results = Vec<Option<Result<Issued, IssueError>>>;

impl Valet {
    /// Opens uploads, or finds those and the images that this user has of the same bytes or under the same key. One bad
    /// item harms no other.
    ///
    /// # Errors
    /// [`StoreError`]; asking again is safe.
    pub async fn issue_all(
        &self,
        user: UserId,
        declared: &[DeclaredUpload<'_>],
        now: OffsetDateTime,
    ) -> Result<Vec<Result<Issued, IssueError>>, StoreError> {
        let fit = self.capabilities.require_support(UploadClass::WithDigest);
        let mut results: Results = declared.iter().map(|_| None).collect();
        let mut wanted = Vec::with_capacity(declared.len());
        for (at, declared) in declared.iter().enumerate() {
            match self.validate(declared) {
                Ok(_) if fit.is_err() => results[at] = fit.clone().err().map(|unfit| Err(unfit.into())),
                Ok((upload, sha256)) => {
                    let named = |key: &IdempotencyKey| Idempotency { key: key.clone(), request: declared.fingerprint() };
                    wanted.push(UploadRequest { at, upload, sha256, idempotency: declared.key.map(named) });
                }
                Err(broken) => results[at] = Some(Err(IssueError::InvalidDeclaration(broken))),
            }
        }
        if wanted.len() > 1 {
            // A phone that sends its camera roll again has most of it here; a single upload is new as a rule.
            wanted = self.resolve_known(user, wanted, &mut results, now).await?;
        }
        for _ in 0..MAX_ATTEMPTS {
            if wanted.is_empty() {
                break;
            }
            wanted = self.open_uploads(user, wanted, &mut results, now).await?;
            if !wanted.is_empty() {
                wanted = self.resolve_known(user, wanted, &mut results, now).await?;
                wanted = self.resolve_refused(user, wanted, &mut results).await?;
            }
        }
        let unsettled = || Err(StoreError::Contention { what: "uploads of the same bytes" }.into());
        Ok(results.into_iter().map(|answer| answer.unwrap_or_else(unsettled)).collect())
    }

    /// Reserves, inserts, signs. What is left was refused by the quota or by a unique index.
    async fn open_uploads(
        &self,
        user: UserId,
        wanted: Vec<UploadRequest>,
        results: &mut Results,
        now: OffsetDateTime,
    ) -> Result<Vec<UploadRequest>, StoreError> {
        let mut drafts = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            drafts.push((self.draft_image(user, &wanted, now)?, wanted));
        }
        let mut refused = Vec::new();
        let images: Vec<_> = drafts.iter().map(|((image, _), _)| image).collect();
        if self.reserve(user, &images, now).await? == ReserveOutcome::Refused {
            // Not all fit: those that do, in the order they were asked for.
            let (mut fitting, is_batch) = (Vec::new(), images.len() > 1);
            for draft in drafts {
                let fits = is_batch && self.reserve(user, &[&draft.0.0], now).await? == ReserveOutcome::Reserved;
                if fits { fitting.push(draft) } else { refused.push(draft.1) }
            }
            drafts = fitting;
        }
        if drafts.is_empty() {
            return Ok(refused);
        }
        let rows: Vec<_> = drafts.iter().map(|((image, _), _)| (image, self.quiet_from(image))).collect();
        let inserted = self.insert_reserved(user, &rows).await?;
        for (((image, puts), wanted), inserted) in drafts.into_iter().zip(inserted) {
            if inserted == InsertOutcome::Inserted {
                let ticket = Ticket::Pending(Box::new(image), puts);
                results[wanted.at] = Some(Ok(Issued { ticket, opened: true }));
            } else {
                refused.push(wanted);
            }
        }
        Ok(refused)
    }

    fn draft_image(
        &self,
        user: UserId,
        wanted: &UploadRequest,
        now: OffsetDateTime,
    ) -> Result<(Image, PresignedPuts), StoreError> {
        let id = ImageId::new();
        let key = if self.capabilities.copies_uploads() { ObjectKey::incoming(user, id) } else { ObjectKey::final_for(user, id) };
        let puts = self.presign_puts(&key, (&wanted.upload, wanted.sha256), now)?;
        let lifetimes = Lifetimes { created_at: now, expires_at: now + self.uploads.ttl, urls_die_at: puts.die_at() };
        Ok((Image::pending((user, id, key), wanted.upload.clone(), wanted.idempotency.clone(), lifetimes), puts))
    }

    /// Results with what this user has under the same key, else of the same bytes. What is left is not known, or not any more.
    async fn resolve_known(
        &self,
        user: UserId,
        wanted: Vec<UploadRequest>,
        results: &mut Results,
        now: OffsetDateTime,
    ) -> Result<Vec<UploadRequest>, StoreError> {
        let digests: Vec<_> = wanted.iter().map(|wanted| wanted.sha256).collect();
        let keys: Vec<_> = wanted.iter().filter_map(|wanted| wanted.idempotency.as_ref()).map(|known| &known.key).collect();
        let known = self.store.images.find_owned_known(user, &digests, &keys).await?;
        let (mut left, mut matched) = (Vec::new(), Vec::new());
        for wanted in wanted {
            let named = wanted.idempotency.as_ref();
            if let Err(error) = known.verify_readable(named.map(|named| &named.key), Some(wanted.sha256)) {
                results[wanted.at] = Some(Err(error.into()));
                continue;
            }
            let by_key = known
                .readable()
                .iter()
                .find(|image| named.is_some() && image.idempotency.as_ref().map(|known| &known.key) == named.map(|n| &n.key));
            let image = match (by_key, named) {
                (Some(image), Some(named)) if image.created_at + IDEMPOTENCY_KEY_TTL <= now => {
                    self.store.images.release_owned_key(user, image.id, &named.key).await?;
                    None
                }
                (Some(image), named) if image.idempotency.as_ref() != named => {
                    results[wanted.at] = Some(Err(IssueError::KeyReused));
                    continue;
                }
                (by_key, _) => by_key,
            };
            let is_same = |image: &&Image| (image.upload.sha256, image.upload.size) == (Some(wanted.sha256), wanted.upload.size);
            match image.or_else(|| known.readable().iter().filter(|image| image.state.is_live()).find(is_same)) {
                Some(image) => matched.push((wanted, image)),
                None => left.push(wanted),
            }
        }
        let matched = self.redeclare(user, matched, results, now).await?;
        let ids: Vec<_> = matched.iter().map(|(_, image)| image.id).collect();
        let renewed = if ids.is_empty() { Vec::new() } else { self.renew_all(user, &ids, now).await? };
        for ((wanted, image), ticket) in matched.into_iter().zip(renewed) {
            match ticket {
                Ok(ticket) => results[wanted.at] = Some(Ok(Issued { ticket, opened: false })),
                // This one's own; the others are not held up.
                Err(RenewError::Store(error @ StoreError::Corrupt { .. })) => results[wanted.at] = Some(Err(error.into())),
                Err(RenewError::Store(error)) => return Err(error),
                Err(RenewError::Unsupported(unfit)) => results[wanted.at] = Some(Err(unfit.into())),
                Err(RenewError::Expired) => {
                    // What came of it is settled now: the next round finds the image, or opens a new upload.
                    self.resolve_expired(image, now).await?;
                    left.push(wanted);
                }
                Err(RenewError::NotFound | RenewError::NotSingle | RenewError::Rejected(_)) => left.push(wanted),
            }
        }
        Ok(left)
    }

    /// The user's upload under this key; the key is released when its time is over.
    ///
    /// # Errors
    /// [`IssueError::KeyReused`] when the key came with another request.
    pub(in crate::domain) async fn find_under_key(
        &self,
        user: UserId,
        named: &Idempotency,
        now: OffsetDateTime,
    ) -> Result<Option<Image>, IssueError> {
        let known = self.store.images.find_owned_known(user, &[], &[&named.key]).await?;
        known.verify_readable(Some(&named.key), None)?;
        match known.readable().first().cloned() {
            Some(image) if image.created_at + IDEMPOTENCY_KEY_TTL <= now => {
                self.store.images.release_owned_key(user, image.id, &named.key).await?;
                Ok(None)
            }
            Some(image) if image.idempotency.as_ref() == Some(named) => Ok(Some(image)),
            Some(_) => Err(IssueError::KeyReused),
            None => Ok(None),
        }
    }

    /// Says why the quota refused; what would be let in by now is left.
    async fn resolve_refused(
        &self,
        user: UserId,
        wanted: Vec<UploadRequest>,
        results: &mut Results,
    ) -> Result<Vec<UploadRequest>, StoreError> {
        if wanted.is_empty() {
            return Ok(wanted);
        }
        let usage = self.store.users.usage(user).await?;
        let mut left = Vec::new();
        for wanted in wanted {
            match self.quota_refusal(usage, wanted.upload.bytes()) {
                Some(refusal) => results[wanted.at] = Some(Err(refusal)),
                None => left.push(wanted),
            }
        }
        Ok(left)
    }

    /// Accepts, rejects or expires an upload past its expiry: it must not keep its bytes from being uploaded again, nor lose them
    /// if they have arrived.
    async fn resolve_expired(&self, image: &Image, now: OffsetDateTime) -> Result<(), StoreError> {
        match self.inspect_upload(image, now).await? {
            Inspection::Verified(verified) => self.accept(image, &verified).await.map(drop),
            Inspection::Mismatch(why) => self.reject(image, why, now).await,
            Inspection::Missing | Inspection::PartsMissing(_) | Inspection::Unsupported(_) => {
                self.expire(image, now).await.map(drop)
            }
            Inspection::PartsRefused => self.expire_refused(image, now).await.map(drop),
        }
    }
}
