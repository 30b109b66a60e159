//! Runs the probes of `probe_matrix`: each writes an object of its own, sends a request with one deviation, and observes the
//! result.

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{
    probe_context::{BODY, OTHER, ProbeContext, TYPE, UrlValidity, new_object, outage_as_error},
    probe_matrix::{Deviation, PROBES, RequestKind},
    probe_names,
};
use crate::{
    model::{ObjectKey, PartChecksums},
    signer::{PresignRequest, SignedForm},
    store::{
        StoreError,
        objects::{
            MultipartCall, NewPart, Sealing,
            http_probe::{Method, ProbeResponse as Response},
        },
    },
};

/// Concurrent probes.
const MAX_CONCURRENT: usize = 16;
/// Boundary between the fields of a form.
const BOUNDARY: &str = "valet-check";

/// A probe and its outcome.
pub(super) struct ProbeResult {
    pub deviation: Deviation,
    pub kind: RequestKind,
    pub outcome: ProbeOutcome,
}

/// Whether the store enforced the signature, with the observation.
pub(super) enum ProbeOutcome {
    /// The store refused the deviation, or ignored it.
    Enforced,
    /// The store obeyed the deviation.
    Obeyed(String),
    /// Anyone may read every object, so publishing one has no visible effect; another rule reports that.
    Unobservable,
    /// The store does not support this kind of request: it refuses one without a deviation, too.
    Unsupported(String),
    /// The store did not answer.
    Failed(String),
}

/// Shared state of the probes.
pub(super) struct ProbeSetup {
    /// Object that is copied; contains [`OTHER`].
    pub source: ObjectKey,
    /// Whether anyone may read every object.
    pub is_public: bool,
}

impl ProbeSetup {
    /// Uploads the source of copies, and finds out whether anyone may read it.
    pub async fn prepare(context: &ProbeContext<'_>) -> Result<Self, StoreError> {
        let source = context.key("source");
        put_as_signed(context, &source).await?;
        let is_public = context.read_unsigned(&source).await?.is_success();
        Ok(Self { source, is_public })
    }
}

/// Uploads [`OTHER`] with a presigned PUT, before the probes and after them. If the store refuses it, the probes prove nothing.
///
/// # Errors
/// [`StoreError`] if the upload fails.
pub(super) async fn put_as_signed(context: &ProbeContext<'_>, key: &ObjectKey) -> Result<(), StoreError> {
    let put = context.presigned_put(key, OTHER)?;
    let response = context.http.send(Method::PUT, &put.url, &put.headers(), put.body.clone()).await?;
    if response.is_success() {
        return Ok(());
    }
    Err(StoreError::Objects { operation: "presigned PUT", reason: response.describe() })
}

/// Runs the probes of the deviations that `wanted` selects.
pub(super) async fn run_probes(
    context: &ProbeContext<'_>,
    setup: &ProbeSetup,
    wanted: fn(Deviation) -> bool,
) -> Vec<ProbeResult> {
    let selected = PROBES.iter().filter(|(deviation, _)| *deviation == Deviation::Nothing || wanted(*deviation));
    let probes: Vec<_> = selected.flat_map(|(deviation, kinds)| kinds.iter().map(|kind| (*deviation, *kind))).collect();
    let results = stream::iter(probes).map(|(deviation, kind)| async move {
        let outcome = DeviationProbe { context, setup, deviation, kind }.run().await;
        let outcome = outcome.unwrap_or_else(|error| match error {
            error if error.is_final() => ProbeOutcome::Unsupported(error.to_string()),
            error => ProbeOutcome::Failed(error.to_string()),
        });
        ProbeResult { deviation, kind, outcome }
    });
    let (as_signed, mut results): (Vec<_>, Vec<_>) = results
        .buffered(MAX_CONCURRENT)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .partition(|result| result.deviation == Deviation::Nothing);
    for ProbeResult { kind, outcome, .. } in as_signed {
        // If the store rejects even the request without a deviation, its rejections of the others of this kind prove nothing.
        let enforced =
            results.iter_mut().filter(|result| result.kind == kind && matches!(result.outcome, ProbeOutcome::Enforced));
        match outcome {
            ProbeOutcome::Unsupported(why) => enforced.for_each(|result| result.outcome = ProbeOutcome::Unsupported(why.clone())),
            ProbeOutcome::Failed(why) => enforced.for_each(|result| result.outcome = ProbeOutcome::Failed(why.clone())),
            ProbeOutcome::Enforced | ProbeOutcome::Obeyed(_) | ProbeOutcome::Unobservable => {}
        }
    }
    results
}

/// One probe: a kind of request with one deviation.
struct DeviationProbe<'a> {
    context: &'a ProbeContext<'a>,
    setup: &'a ProbeSetup,
    deviation: Deviation,
    kind: RequestKind,
}

impl DeviationProbe<'_> {
    /// Sends the request, and returns whether the store enforced the signature.
    async fn run(&self) -> Result<ProbeOutcome, StoreError> {
        let mut key = self.context.key(&probe_names::matrix_probe(self.kind, self.deviation));
        let response = match self.kind {
            RequestKind::Put => self.put(&key).await?,
            RequestKind::Preview => {
                key = self.context.preview(&key);
                self.put(&key).await?
            }
            RequestKind::Part | RequestKind::AnyPart => self.part(&key).await?,
            RequestKind::Create => self.create(&key).await?,
            RequestKind::Complete => self.complete(&key).await?,
            RequestKind::Form => return self.form(&key).await,
            RequestKind::Get => {
                let (at, ttl) = self.context.validity(self.validity());
                let url = self.context.objects.presign_get(&self.setup.source, TYPE, "private", at, ttl)?.url;
                let got = outage_as_error(self.context.get(&self.changed(url), &[]).await?)?;
                return Ok(match self.deviation {
                    Deviation::Nothing => accepted(got.is_success(), &got),
                    _ => obeyed_if(got.is_success(), &got, "read"),
                });
            }
        };
        self.judge(&key, &response).await
    }

    /// Returns the outcome of a request that was to write `key`, from the response and the object that is stored now.
    async fn judge(&self, key: &ObjectKey, response: &Response) -> Result<ProbeOutcome, StoreError> {
        let stored = self.context.read(key).await?;
        let has_kept = |name: &str| !matches!(stored.header(name), "" | "0");
        Ok(match self.deviation {
            Deviation::Nothing => accepted(response.is_success() && stored.is_success(), response),
            Deviation::CopySource => obeyed_if(stored.is_success() && stored.body == OTHER.as_slice(), response, "copied"),
            Deviation::Acl | Deviation::Grant if self.setup.is_public => ProbeOutcome::Unobservable,
            Deviation::Acl | Deviation::Grant => {
                obeyed_if(self.context.read_unsigned(key).await?.is_success(), response, "anyone may read it")
            }
            Deviation::Metadata => obeyed_if(has_kept("x-amz-meta-valet-check"), response, "kept"),
            Deviation::Tagging => {
                let has_tags = has_kept("x-amz-tagging-count") || stored.is_success() && self.has_tags(key).await?;
                obeyed_if(has_tags, response, "kept")
            }
            Deviation::Redirect => obeyed_if(has_kept("x-amz-website-redirect-location"), response, "kept"),
            Deviation::CustomerKey | Deviation::StorageClass => {
                obeyed_if(response.is_success() && !stored.is_success(), response, "cannot be read any more")
            }
            _ if stored.is_success() && !response.is_success() => obeyed_if(true, response, "yet stored"),
            _ => obeyed_if(stored.is_success() || response.is_success(), response, "taken"),
        })
    }

    /// Returns whether the object has tags. LocalStack omits their count from a GET in a bucket with versions.
    async fn has_tags(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let url = self.context.presign(&PresignRequest {
            method: "GET",
            key: key.as_str(),
            headers: &[],
            query: &[("tagging", "")],
        })?;
        let listed = outage_as_error(self.context.get(&url, &[]).await?)?;
        Ok(listed.is_success() && String::from_utf8_lossy(&listed.body).contains("<Key>"))
    }

    fn validity(&self) -> UrlValidity {
        if self.deviation == Deviation::Expired { UrlValidity::Expired } else { UrlValidity::Current }
    }

    /// Returns a signed URL, changed if the deviation changes URLs.
    fn changed(&self, mut url: String) -> String {
        match self.deviation {
            Deviation::Signature => tamper(&mut url),
            Deviation::Query => url.push_str("&response-content-disposition=inline"),
            _ => {}
        }
        url
    }

    /// Returns the body to send: [`BODY`], or a longer one.
    fn body(&self) -> Bytes {
        let longer = if self.deviation == Deviation::Length { OTHER.as_slice() } else { &[] };
        [BODY.as_slice(), longer].concat().into()
    }

    /// Returns the headers that the deviation adds.
    fn added(&self) -> Vec<(&'static str, String)> {
        self.deviation.headers(&self.context.prober.copy_source(&self.setup.source))
    }

    /// Sends a request. Deviating headers come last, and replace signed ones.
    async fn send(
        &self,
        method: Method,
        url: String,
        signed: &[(&'static str, String)],
        body: Bytes,
    ) -> Result<Response, StoreError> {
        let added = self.added();
        let mut headers: Vec<_> = signed.iter().chain(&added).map(|(name, value)| (*name, value.as_str())).collect();
        if body.is_empty() {
            // The HTTP client omits the header of an empty body.
            headers.push(("content-length", "0"));
        }
        outage_as_error(self.context.http.send(method, &self.changed(url), &headers, body).await?)
    }

    async fn put(&self, key: &ObjectKey) -> Result<Response, StoreError> {
        let (at, ttl) = self.context.validity(self.validity());
        if self.deviation == Deviation::Length {
            // The URL signs no checksum, because a store would refuse a longer body for its checksum as well.
            let length = BODY.len().to_string();
            let headers = [("content-length", length.as_str())];
            let url =
                self.context.presign(&PresignRequest { method: "PUT", key: key.as_str(), headers: &headers, query: &[] })?;
            return self.send(Method::PUT, url, &[], self.body()).await;
        }
        let put = self.context.objects.presign_put_as(Sealing::Plain, key, new_object(BODY), at, ttl)?;
        self.send(Method::PUT, put.signed.url, &put.headers, self.body()).await
    }

    /// Uploads a part of a new multipart upload, and completes it if the part arrived.
    async fn part(&self, key: &ObjectKey) -> Result<Response, StoreError> {
        let (at, ttl) = self.context.validity(self.validity());
        let upload = self.context.prober.begin(key, PartChecksums::None).await?;
        let sent = async {
            let url = if self.kind == RequestKind::AnyPart {
                self.context.objects.presign_any_part(key, &upload, 1, at, ttl)?.url
            } else {
                let part = NewPart { number: 1, length: BODY.len() as u64, sha256: None };
                self.context.objects.presign_part(key, &upload, part, at, ttl)?.signed.url
            };
            // A copy to a part of any length is sent without body and range, then with both: stores treat the forms differently.
            let is_bodyless = self.kind == RequestKind::AnyPart && self.deviation == Deviation::CopySource;
            let body = if is_bodyless { Bytes::new() } else { self.body() };
            let mut response = self.send(Method::PUT, url.clone(), &[], body).await?;
            if self.deviation == Deviation::CopySource && !response.is_success() {
                let range = [("x-amz-copy-source-range", format!("bytes=0-{}", OTHER.len() - 1))];
                response = self.send(Method::PUT, url, &range, self.body()).await?;
            }
            self.finish(key, &upload).await?;
            Ok(response)
        };
        let sent = sent.await;
        self.abort_unfinished(key, &upload).await;
        sent
    }

    /// Opens a multipart upload with a presigned request, and completes it with a valid part.
    async fn create(&self, key: &ObjectKey) -> Result<Response, StoreError> {
        let (at, ttl) = self.context.validity(self.validity());
        let url = self.context.objects.presign_multipart_call(key, MultipartCall::Create, at, ttl)?.url;
        let response = self.send(Method::POST, url, &[], Bytes::new()).await?;
        let text = String::from_utf8_lossy(&response.body);
        let opened = text.split_once("<UploadId>").and_then(|(_, rest)| rest.split_once('<'));
        let Some((upload, _)) = opened.filter(|_| response.is_success()) else { return Ok(response) };
        let finished = async {
            self.put_part(key, upload).await?;
            self.finish(key, upload).await
        };
        let finished = finished.await;
        self.abort_unfinished(key, upload).await;
        finished.map(|()| response.clone())
    }

    /// Completes a multipart upload with a presigned request, after a valid part.
    async fn complete(&self, key: &ObjectKey) -> Result<Response, StoreError> {
        let (at, ttl) = self.context.validity(self.validity());
        let upload = self.context.prober.begin(key, PartChecksums::None).await?;
        let sent = async {
            self.put_part(key, &upload).await?;
            let etag = self.context.prober.parts(key, &upload).await?.unwrap_or_default().pop().map(|part| part.etag);
            let part = format!("<Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part>", etag.unwrap_or_default());
            let body = format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>");
            let url = self.context.objects.presign_multipart_call(key, MultipartCall::Complete(&upload), at, ttl)?.url;
            self.send(Method::POST, url, &[], body.into()).await
        };
        let sent = sent.await;
        self.abort_unfinished(key, &upload).await;
        sent
    }

    /// Uploads a valid part.
    async fn put_part(&self, key: &ObjectKey, upload: &str) -> Result<(), StoreError> {
        let (at, ttl) = self.context.validity(UrlValidity::Current);
        let url = self.context.objects.presign_any_part(key, upload, 1, at, ttl)?.url;
        outage_as_error(self.context.http.send(Method::PUT, &url, &[], Bytes::from_static(BODY)).await?).map(drop)
    }

    /// Completes the upload if a part has arrived.
    async fn finish(&self, key: &ObjectKey, upload: &str) -> Result<(), StoreError> {
        if let Some(part) = self.context.prober.parts(key, upload).await?.unwrap_or_default().first() {
            self.context.prober.complete_once(key, upload, &part.etag).await?;
        }
        Ok(())
    }

    async fn abort_unfinished(&self, key: &ObjectKey, upload: &str) {
        if let Err(error) = self.context.prober.abort(key, upload).await {
            tracing::warn!(%error, "failed to abort a multipart upload of this check");
        }
    }

    /// Sends the deviation as a form field, then as a header of the request: stores obey one or the other.
    async fn form(&self, key: &ObjectKey) -> Result<ProbeOutcome, StoreError> {
        let validity = self.validity();
        let fields: Vec<_> = self.added().into_iter().map(as_field).collect();
        let form = self.context.signed_form(key, validity)?;
        let response = outage_as_error(send_form(self.context, &form, &fields, &[], Some(self.deviation)).await?)?;
        let by_field = self.judge(key, &response).await?;
        let has_header = self.deviation.headers("").iter().any(|(name, _)| name.starts_with("x-amz-"));
        if !has_header || matches!(by_field, ProbeOutcome::Obeyed(_)) {
            return Ok(by_field);
        }
        let key = self.context.by_header(key);
        let form = self.context.signed_form(&key, validity)?;
        let response = outage_as_error(send_form(self.context, &form, &[], &self.added(), Some(self.deviation)).await?)?;
        self.judge(&key, &response).await
    }
}

/// Returns the form field that corresponds to a header ("POST Object" in the S3 API reference).
fn as_field((name, value): (&'static str, String)) -> (&'static str, String) {
    match name {
        "x-amz-acl" => ("acl", value),
        "x-amz-tagging" => {
            ("tagging", "<Tagging><TagSet><Tag><Key>valet-check</Key><Value>unsigned</Value></Tag></TagSet></Tagging>".to_owned())
        }
        _ => (name, value),
    }
}

/// Sends a form with [`BODY`] like a browser: the signed fields that `fields` does not replace, `fields`, then the file.
pub(super) async fn send_form(
    context: &ProbeContext<'_>,
    form: &SignedForm,
    fields: &[(&'static str, String)],
    headers: &[(&'static str, String)],
    deviation: Option<Deviation>,
) -> Result<Response, StoreError> {
    let mut body = Vec::new();
    let replaced = |name: &str| fields.iter().any(|(added, _)| *added == name);
    let signed = form.fields.iter().filter(|(name, _)| !replaced(name)).map(|(name, value)| (&**name, value.clone()));
    for (name, mut value) in signed.chain(fields.iter().map(|(name, value)| (*name, value.clone()))) {
        if deviation == Some(Deviation::Signature) && name == "x-amz-signature" {
            tamper(&mut value);
        }
        let field = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(field.as_bytes());
    }
    let file = format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"check.png\"\r\ncontent-type: {}\r\n\r\n",
        TYPE.as_str()
    );
    body.extend_from_slice(file.as_bytes());
    body.extend_from_slice(BODY);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let mut all = vec![("content-type", kind.as_str())];
    all.extend(headers.iter().map(|(name, value)| (*name, value.as_str())));
    context.http.send(Method::POST, &form.url, &all, body.into()).await
}

/// Changes the last digit of a signature.
fn tamper(text: &mut String) {
    let last = if text.pop() == Some('0') { '1' } else { '0' };
    text.push(last);
}

/// Returns the outcome of a request without a deviation, for which [`ProbeOutcome::Enforced`] means accepted.
fn accepted(is_accepted: bool, response: &Response) -> ProbeOutcome {
    if is_accepted { ProbeOutcome::Enforced } else { ProbeOutcome::Unsupported(response.describe()) }
}

/// Returns the outcome of a request with a deviation; `effect` is what shows that the store obeyed it.
fn obeyed_if(obeyed: bool, response: &Response, effect: &str) -> ProbeOutcome {
    if obeyed { ProbeOutcome::Obeyed(format!("{}, {effect}", response.describe())) } else { ProbeOutcome::Enforced }
}
