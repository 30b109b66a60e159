//! Opens uploads: reserves quota, inserts images, and presigns PUTs. Finds existing uploads and images of the same bytes or key
//! instead.

use time::OffsetDateTime;

use super::{
    DeclaredUpload, OpenError, OpenOutcome, PresignedPuts, RenewError, Ticket, Uploads, idempotency::IDEMPOTENCY_KEY_TTL,
    recent_uploads::BytesStatus,
};
use crate::{
    domain::{inspection::Inspection, store_capabilities::UploadClass, unavailable_upload::UnavailableUpload},
    model::{Idempotency, IdempotencyKey, Image, ImageId, Lifetimes, ObjectKey, Sha256, Upload, UserId},
    store::{InsertOutcome, ReserveOutcome, StoreError},
};

/// Attempts at opening uploads that concurrent requests change; more conflicts are an error.
const MAX_ATTEMPTS: usize = 5;

/// A valid declaration of a request.
pub(super) struct UploadRequest {
    /// Index of the declaration in the request, and of its result.
    pub(super) index: usize,
    pub(super) upload: Upload,
    sha256: Sha256,
    pub(super) idempotency: Option<Idempotency>,
}

/// Results of the request's items, in order; `None` until an item is resolved.
pub(super) type Results = Vec<Option<Result<OpenOutcome, OpenError>>>;

impl Uploads {
    /// Opens uploads, or finds this user's uploads and images with the same bytes or the same key. An invalid item does not
    /// affect the others.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn open_all(
        &self,
        user: UserId,
        declared: &[DeclaredUpload<'_>],
        now: OffsetDateTime,
    ) -> Result<Vec<Result<OpenOutcome, OpenError>>, StoreError> {
        let support = self.capabilities.require_support(UploadClass::WithDigest);
        let mut results: Results = declared.iter().map(|_| None).collect();
        let mut requests = Vec::with_capacity(declared.len());
        for (index, declared) in declared.iter().enumerate() {
            match self.validate(declared, now) {
                Ok(_) if support.is_err() => results[index] = support.clone().err().map(|unsupported| Err(unsupported.into())),
                Ok((upload, sha256)) => {
                    let with_key = |key: &IdempotencyKey| Idempotency { key: key.clone(), request: declared.fingerprint() };
                    requests.push(UploadRequest { index, upload, sha256, idempotency: declared.key.map(with_key) });
                }
                Err(broken) => results[index] = Some(Err(OpenError::InvalidDeclaration(broken))),
            }
        }
        // A client that uploads its camera roll again has uploaded most of it before; a single upload is usually new.
        let is_likely_known = |request: &UploadRequest| self.recent.is_likely_known(user, request.sha256);
        if requests.len() > 1 || requests.iter().any(is_likely_known) {
            requests = self.resolve_known(user, requests, &mut results, now).await?;
        }
        for _ in 0..MAX_ATTEMPTS {
            if requests.is_empty() {
                break;
            }
            requests = self.open_uploads(user, requests, &mut results, now).await?;
            if !requests.is_empty() {
                requests = self.resolve_known(user, requests, &mut results, now).await?;
                requests = self.resolve_exceeding(user, requests, &mut results).await?;
            }
        }
        for OpenOutcome { ticket, is_new } in results.iter().flatten().flatten() {
            let (Ticket::Pending(image, _) | Ticket::Ready(image)) = ticket;
            if let Some(sha256) = image.upload.sha256() {
                self.recent.remember(user, sha256, if *is_new { BytesStatus::New } else { BytesStatus::Known });
            }
        }
        let unresolved = || Err(StoreError::Contention { subject: "uploads of the same bytes" }.into());
        Ok(results.into_iter().map(|answer| answer.unwrap_or_else(unresolved)).collect())
    }

    /// Presigns PUTs, reserves quota and inserts images. Returns the requests whose reservation is rejected, and those that a
    /// unique index rejects.
    async fn open_uploads(
        &self,
        user: UserId,
        requests: Vec<UploadRequest>,
        results: &mut Results,
        now: OffsetDateTime,
    ) -> Result<Vec<UploadRequest>, StoreError> {
        let mut drafts = Vec::with_capacity(requests.len());
        for request in requests {
            drafts.push((self.draft_image(user, &request, now)?, request));
        }
        let mut rejected = Vec::new();
        let images: Vec<_> = drafts.iter().map(|((image, _), _)| image).collect();
        if self.reservations.reserve(user, &images, now).await? == ReserveOutcome::Rejected {
            // Not all fit into the quota: reserves those that do, in the order of the request.
            let (mut fitting, is_batch) = (Vec::new(), images.len() > 1);
            for draft in drafts {
                let fits = is_batch && self.reservations.reserve(user, &[&draft.0.0], now).await? == ReserveOutcome::Reserved;
                if fits { fitting.push(draft) } else { rejected.push(draft.1) }
            }
            drafts = fitting;
        }
        if drafts.is_empty() {
            return Ok(rejected);
        }
        let rows: Vec<_> = drafts.iter().map(|((image, _), _)| (image, self.late_transfers.writes_end_at(image))).collect();
        let inserted = self.reservations.insert_reserved(user, &rows).await?;
        for (((image, puts), request), inserted) in drafts.into_iter().zip(inserted) {
            if inserted == InsertOutcome::Inserted {
                let ticket = Ticket::Pending(Box::new(image), puts);
                results[request.index] = Some(Ok(OpenOutcome { ticket, is_new: true }));
            } else {
                rejected.push(request);
            }
        }
        Ok(rejected)
    }

    /// Returns an image that is not inserted yet, with its presigned URLs.
    fn draft_image(
        &self,
        user: UserId,
        request: &UploadRequest,
        now: OffsetDateTime,
    ) -> Result<(Image, PresignedPuts), StoreError> {
        let id = ImageId::new();
        let key = if self.capabilities.copies_uploads() { ObjectKey::incoming(user, id) } else { ObjectKey::final_for(user, id) };
        let puts = self.presign_puts(&key, &request.upload, request.sha256, now)?;
        let lifetimes = Lifetimes { created_at: now, expires_at: now + self.settings.ttl, urls_expire_at: puts.expire_at() };
        Ok((Image::pending(user, id, key, request.upload.clone(), request.idempotency.clone(), lifetimes), puts))
    }

    /// Sets the results of requests for which this user has an upload or image with the same key or the same bytes. Returns the
    /// other requests.
    async fn resolve_known(
        &self,
        user: UserId,
        requests: Vec<UploadRequest>,
        results: &mut Results,
        now: OffsetDateTime,
    ) -> Result<Vec<UploadRequest>, StoreError> {
        let digests: Vec<_> = requests.iter().map(|request| request.sha256).collect();
        let keys: Vec<_> =
            requests.iter().filter_map(|request| request.idempotency.as_ref()).map(|idempotency| &idempotency.key).collect();
        let known_uploads = self.store.images.find_owned_known(user, &digests, &keys).await?;
        let (mut left, mut matched) = (Vec::new(), Vec::new());
        for request in requests {
            let idempotency = request.idempotency.as_ref();
            if let Err(error) = known_uploads.verify_readable(idempotency.map(|sent| &sent.key), Some(request.sha256)) {
                results[request.index] = Some(Err(error.into()));
                continue;
            }
            let by_key = known_uploads.readable().iter().find(|image| {
                idempotency.is_some_and(|sent| image.idempotency.as_ref().is_some_and(|known| known.key == sent.key))
            });
            let image = match (by_key, idempotency) {
                (Some(image), Some(sent)) if image.created_at + IDEMPOTENCY_KEY_TTL <= now => {
                    self.store.images.release_owned_key(user, image.id, &sent.key).await?;
                    None
                }
                (Some(image), sent) if image.idempotency.as_ref() != sent => {
                    results[request.index] = Some(Err(OpenError::KeyReused));
                    continue;
                }
                (by_key, _) => by_key,
            };
            let is_same =
                |image: &&Image| (image.upload.sha256(), image.upload.size) == (Some(request.sha256), request.upload.size);
            match image.or_else(|| known_uploads.readable().iter().filter(|image| image.state().is_live()).find(is_same)) {
                Some(image) => matched.push((request, image)),
                None => left.push(request),
            }
        }
        let matched = self.redeclare(user, matched, results, now).await?;
        let ids: Vec<_> = matched.iter().map(|(_, image)| image.id).collect();
        let renewed = if ids.is_empty() { Vec::new() } else { self.renew_all(user, &ids, now).await? };
        for ((request, image), ticket) in matched.into_iter().zip(renewed) {
            match ticket {
                Ok(ticket) => results[request.index] = Some(Ok(OpenOutcome { ticket, is_new: false })),
                Err(RenewError::Store(error @ StoreError::Corrupt { .. })) => results[request.index] = Some(Err(error.into())),
                Err(RenewError::Unsupported(unsupported)) => results[request.index] = Some(Err(unsupported.into())),
                Err(RenewError::Unavailable(UnavailableUpload::Expired)) => {
                    // Resolved now, so that the next round finds the image, or opens a new upload.
                    self.resolve_expired(image, now).await?;
                    left.push(request);
                }
                Err(RenewError::NotSingle | RenewError::Unavailable(_) | RenewError::Store(StoreError::Contention { .. })) => {
                    left.push(request);
                }
                Err(RenewError::Store(error)) => return Err(error),
            }
        }
        Ok(left)
    }

    /// Sets the errors of requests that the quota, the limit of open uploads or a deleted account rejects. Returns the other
    /// requests.
    async fn resolve_exceeding(
        &self,
        user: UserId,
        requests: Vec<UploadRequest>,
        results: &mut Results,
    ) -> Result<Vec<UploadRequest>, StoreError> {
        if requests.is_empty() {
            return Ok(requests);
        }
        let usage = self.store.usage(user).await?;
        let mut unresolved = Vec::new();
        for request in requests {
            match self.quota.quota_error(usage, request.upload.bytes()) {
                Some(error) => results[request.index] = Some(Err(error)),
                None => unresolved.push(request),
            }
        }
        Ok(unresolved)
    }

    /// Accepts, rejects, prolongs or expires an upload past its expiry: such an upload must not prevent its bytes from being
    /// uploaded again, and bytes must not be lost that have arrived or are being sent with a URL that was signed shortly before
    /// the expiry.
    async fn resolve_expired(&self, image: &Image, now: OffsetDateTime) -> Result<(), StoreError> {
        match self.inspector.inspect_upload(image, now).await? {
            Inspection::Verified(verified) => self.lifecycle.accept(image, &verified).await.map(drop),
            Inspection::Mismatch(why) => self.lifecycle.reject(image, why, now).await.map(drop),
            Inspection::Missing | Inspection::PartsMissing(_) | Inspection::PartsRejected | Inspection::Unsupported(_) => {
                if now < self.late_transfers.writes_end_at(image) {
                    return self.store.images.extend_expiry(image, now + self.settings.ttl).await.map(drop);
                }
                self.lifecycle.expire(image, now).await.map(drop)
            }
        }
    }
}
