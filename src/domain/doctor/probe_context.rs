//! Context of the probes: the bucket, the HTTP client, and the keys of the objects that probes write. The objects are removed
//! afterwards.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Answer, answer_if, probe_names::is_name};
use crate::{
    model::{ContentType, ObjectKey, Sha256},
    signer::{PresignRequest, Presigned, SignedForm},
    store::{
        Objects, StoreError,
        objects::{
            NewObject, Sealing,
            http_probe::{Method, ProbeClient, ProbeResponse as Response},
            list::{ListedObject, ListedUpload},
            prober::Prober,
        },
    },
};

/// Prefix of all objects of probes.
const PREFIX: &str = "check/";
/// Age at which objects of earlier checks are removed; longer than [`super::CHECK_DEADLINE`].
const STALE_AGE: Duration = Duration::from_secs(15 * 60);
/// Suffix of the key of a probe's second request.
const HEADER_SUFFIX: &str = "-header";
/// Maximum number of objects or uploads that are removed at the same time.
const MAX_CONCURRENT: usize = 8;
/// Lifetime of valid URLs.
const TTL: Duration = Duration::from_secs(5 * 60);
/// Bytes that probes upload.
pub(super) const BODY: &[u8; 48] = b"written by valet check, which removes it again. ";
/// Other bytes, of the same length.
pub(super) const OTHER: &[u8; 48] = b"other bytes than those the URL was signed for.. ";
/// Declared type of these bytes.
pub(super) const TYPE: ContentType = ContentType::Png;

/// The bucket that is checked.
pub(super) struct ProbeContext<'a> {
    pub objects: &'a Objects,
    pub prober: Prober<'a>,
    pub http: ProbeClient,
    /// Prefix of the keys of this check.
    run_prefix: String,
    now: OffsetDateTime,
    /// Every key that was used, for a store whose objects the credentials may not list.
    used_keys: Mutex<Vec<ObjectKey>>,
}

/// A presigned PUT that was not sent yet.
pub(super) struct Put {
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

/// Validity of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UrlValidity {
    /// Valid during the check.
    Current,
    /// Valid for a second, an hour ago.
    Expired,
}

impl Put {
    /// Returns the names and values of the headers.
    pub fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}

impl<'a> ProbeContext<'a> {
    /// Returns the context of a new check, whose URLs are signed at `now`.
    pub fn new(objects: &'a Objects, http: ProbeClient, now: OffsetDateTime) -> Self {
        Self {
            objects,
            prober: objects.prober(),
            http,
            run_prefix: format!("{PREFIX}{}/", Uuid::new_v4()),
            now,
            used_keys: Mutex::default(),
        }
    }

    /// Returns the key of a probe of this name, which must be one that [`ProbeContext::clean`] removes.
    pub fn key(&self, name: &str) -> ObjectKey {
        debug_assert!(is_name(name), "a probe has no known name: {name}");
        self.record_key(ObjectKey::from_stored(format!("{}{name}", self.run_prefix)))
    }

    /// Returns the key of the preview of a probe.
    pub fn preview(&self, key: &ObjectKey) -> ObjectKey {
        self.record_key(key.preview())
    }

    /// Returns the key of a probe's second request, which deviates by a header.
    pub fn by_header(&self, key: &ObjectKey) -> ObjectKey {
        self.record_key(ObjectKey::from_stored(format!("{key}{HEADER_SUFFIX}")))
    }

    /// Adds a key to those that were used, and returns it.
    fn record_key(&self, key: ObjectKey) -> ObjectKey {
        self.used_keys.lock().push(key.clone());
        key
    }

    /// Presigns a plain PUT of these bytes, as clients get it.
    pub fn presigned_put(&self, key: &ObjectKey, body: &[u8]) -> Result<Put, StoreError> {
        let put = self.objects.presign_put_as(Sealing::Plain, key, new_object(body), self.now, TTL)?;
        Ok(Put { url: put.signed.url, headers: put.headers, body: Bytes::copy_from_slice(body) })
    }

    /// Returns the signing time and the lifetime of a URL.
    pub fn validity(&self, validity: UrlValidity) -> (OffsetDateTime, Duration) {
        match validity {
            UrlValidity::Current => (self.now, TTL),
            UrlValidity::Expired => (self.now - Duration::from_secs(60 * 60), Duration::from_secs(1)),
        }
    }

    /// Uploads [`BODY`], with one deviation from the signature.
    pub async fn put(&self, key: &ObjectKey, deviate: impl FnOnce(&mut Put)) -> Result<Response, StoreError> {
        let mut put = self.presigned_put(key, BODY)?;
        deviate(&mut put);
        outage_as_error(self.http.send(Method::PUT, &put.url, &put.headers(), put.body.clone()).await?)
    }

    /// Signs a form for [`BODY`], as Uppy gets it.
    pub fn signed_form(&self, key: &ObjectKey, validity: UrlValidity) -> Result<SignedForm, StoreError> {
        let (at, ttl) = self.validity(validity);
        self.objects.sign_form(key, TYPE, u64::try_from(BODY.len()).unwrap_or(0), at, ttl)
    }

    /// Returns a valid URL for this request.
    pub fn presign(&self, request: &PresignRequest<'_>) -> Result<String, StoreError> {
        Ok(self.prober.presign(request, self.now, TTL)?.url)
    }

    /// Presigns a GET as clients get it, with another type than the stored one.
    pub fn presigned_get(&self, key: &ObjectKey, cache_control: &str) -> Result<Presigned, StoreError> {
        self.objects.presign_get(key, ContentType::Webp, cache_control, self.now, TTL)
    }

    /// Presigns a GET that saves the object under a file name.
    pub fn presigned_download(&self, key: &ObjectKey, name: &crate::model::FileName) -> Result<Presigned, StoreError> {
        self.objects.presign_download(key, ContentType::Webp, name, self.now, TTL)
    }

    /// Sends a GET with these headers.
    pub async fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Response, StoreError> {
        self.http.send(Method::GET, url, headers, Bytes::new()).await
    }

    /// Reads the object with a signed GET, since HEAD needs one more permission.
    pub async fn read(&self, key: &ObjectKey) -> Result<Response, StoreError> {
        outage_as_error(
            self.get(&self.presign(&PresignRequest { method: "GET", key: key.as_str(), headers: &[], query: &[] })?, &[]).await?,
        )
    }

    /// Reads the object without a signature.
    pub async fn read_unsigned(&self, key: &ObjectKey) -> Result<Response, StoreError> {
        let url = self.presign(&PresignRequest { method: "GET", key: key.as_str(), headers: &[], query: &[] })?;
        outage_as_error(self.get(url.split('?').next().unwrap_or_default(), &[]).await?)
    }

    /// Returns yes if the store rejected a request: it answered 4xx, and stored no object at `key`.
    pub async fn rejection_answer(&self, key: &ObjectKey, response: &Response) -> Result<Answer, StoreError> {
        let stored = self.read(key).await?.is_success();
        let but = if stored && !response.is_success() { ", yet stored" } else { "" };
        Ok(answer_if(response.is_rejected() && !stored, format!("{}{but}", response.describe())))
    }

    /// Removes the objects of this check, and those of interrupted earlier ones.
    pub async fn clean(&self) -> Result<Answer, StoreError> {
        // A request of an interrupted check may write its object after the object was removed.
        self.http.wait_for_responses().await;
        let mut next = None;
        // The times of objects are by the store's clock.
        let stale = self.now + self.objects.clock_ahead() - STALE_AGE;
        loop {
            let page = match self.objects.object_page(PREFIX, next).await {
                Ok(page) => page,
                Err(error) if !error.is_temporary() => return self.clean_unlisted(&error).await,
                Err(error) => return Err(error),
            };
            let is_stale = |object: &ListedObject| object.modified < stale && is_probe(&object.key);
            let is_ours = |object: &ListedObject| object.key.as_str().starts_with(&self.run_prefix) || is_stale(object);
            let ours: Vec<_> = page.objects.into_iter().filter(is_ours).map(|object| object.key).collect();
            self.purge(&ours).await?;
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        self.abort_uploads().await?;
        let objects_left = self.objects.object_page(&self.run_prefix, None).await?.objects.len();
        Ok(answer_if(objects_left == 0, if objects_left == 0 { String::new() } else { format!("{objects_left} objects") }))
    }

    /// Aborts the multipart uploads of this check, and those of interrupted earlier ones.
    async fn abort_uploads(&self) -> Result<(), StoreError> {
        // The times of uploads are by the store's clock, too.
        let stale = self.now + self.objects.clock_ahead() - STALE_AGE;
        let mut next = None;
        while let Some(page) = self.objects.upload_page(PREFIX, next).await? {
            let is_stale = |upload: &ListedUpload| upload.initiated < stale && is_probe(&upload.key);
            let is_ours = |upload: &ListedUpload| upload.key.as_str().starts_with(&self.run_prefix) || is_stale(upload);
            let ours: Vec<_> = page.uploads.into_iter().filter(is_ours).collect();
            let abort = |upload: &ListedUpload| {
                let (key, id) = (upload.key.clone(), upload.id.clone());
                async move { self.objects.abort_multipart(&key, &id).await }
            };
            stream::iter(&ours).map(Ok).try_for_each_concurrent(MAX_CONCURRENT, abort).await?;
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Removes the objects of this check if the store does not list them; those of earlier checks stay.
    async fn clean_unlisted(&self, unlisted: &StoreError) -> Result<Answer, StoreError> {
        tracing::debug!(%unlisted, "failed to list the objects of checks");
        let mut keys = self.used_keys.lock().clone();
        keys.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        keys.dedup();
        self.purge(&keys).await?;
        Ok(Answer::Yes("objects cannot be listed; removed only those of this check".to_owned()))
    }

    /// Removes these objects.
    async fn purge(&self, keys: &[ObjectKey]) -> Result<(), StoreError> {
        stream::iter(keys)
            .map(Ok)
            .try_for_each_concurrent(MAX_CONCURRENT, |key| async { self.objects.purge(key).await.map(drop) })
            .await
    }
}

/// Returns whether a check wrote this key: `check/<UUIDv4>/<name>`, with a name that checks use. The bucket's owner may keep
/// other objects under `check/`.
fn is_probe(key: &ObjectKey) -> bool {
    let Some((run, name)) = key.as_str().strip_prefix(PREFIX).and_then(|rest| rest.split_once('/')) else { return false };
    let is_run = Uuid::try_parse(run).is_ok_and(|id| id.get_version_num() == 4 && id.hyphenated().to_string() == run);
    // Probes of previews and forms write under keys derived from the probe's.
    let is_of = |end| name.strip_suffix(end).is_some_and(is_name);
    is_run && (is_name(name) || is_of("-preview") || is_of(HEADER_SUFFIX))
}

/// Returns the response, unless it reports an outage, from which no rule can be judged: 408, 429, or any 5xx except 501, with which
/// a store rejects a request that it does not know.
///
/// # Errors
/// [`StoreError::Objects`] for an outage.
pub(super) fn outage_as_error(response: Response) -> Result<Response, StoreError> {
    if matches!(response.status, 408 | 429 | 500 | 502..600) {
        return Err(StoreError::Objects { operation: "presigned request", reason: response.describe() });
    }
    Ok(response)
}

/// Returns the declaration of a PUT of these bytes.
pub(super) fn new_object(body: &[u8]) -> NewObject {
    NewObject { content_type: TYPE, size: u64::try_from(body.len()).unwrap_or(0), sha256: sha256(body) }
}

/// Returns the SHA-256 digest of the bytes.
pub(super) fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256::of([bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_are_recognized() {
        let run = Uuid::new_v4();
        let is_probe = |key: String| super::is_probe(&ObjectKey::from_stored(key));
        assert!(is_probe(format!("check/{run}/before-block")) && is_probe(format!("check/{run}/overlap-3")));
        for name in [
            "put-signature",
            "preview-put-acl-preview",
            "part-of-any-length-copy-source",
            "form-sse-c",
            "form-acl-header",
            "sealed-plain",
            "body-cap",
            "source",
        ] {
            assert!(is_probe(format!("check/{run}/{name}")), "{name}");
        }
        for key in [
            "check/x".to_owned(),
            "check/2026-11-28/report".to_owned(),
            format!("check/{run}"),
            format!("check/{run}/"),
            format!("check/{run}/report.pdf"),
            format!("check/{run}/a/b"),
            format!("check/{}/object", run.simple()),
            format!("check/{}/object", run.to_string().to_uppercase()),
            format!("check/{}/object", Uuid::now_v7()),
            format!("backup/check/{run}/object"),
            format!("check/{run}/report"),
            format!("check/{run}/overlap-0"),
            format!("check/{run}/overlap-6"),
            format!("check/{run}/object-2"),
            format!("check/{run}/sealed-tags"),
            format!("check/{run}/get-acl"),
        ] {
            assert!(!is_probe(key.clone()), "{key}");
        }
    }
}
