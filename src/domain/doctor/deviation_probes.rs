//! Asking the questions of the table (`kinds`): each makes an object of its own, deviates once, and looks what came of it.

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{
    probe_context::{BODY, OTHER, ProbeContext, TYPE, UrlValidity, new_object, reject_outage},
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

/// Questions that are asked at once.
const MAX_CONCURRENT: usize = 16;
const BOUNDARY: &str = "valet-check";

/// A question and what came of it.
pub(super) struct ProbeResult {
    pub deviation: Deviation,
    pub kind: RequestKind,
    pub outcome: ProbeOutcome,
}

/// Whether a signed request stands a deviation, with what was seen.
pub(super) enum ProbeOutcome {
    /// The store refused it, or took no notice of it.
    Enforced,
    /// The store obeyed.
    Obeyed(String),
    /// Anyone may read every object, so that nothing can be published: another rule says so.
    Unobservable,
    /// The store does not have this kind of request: it refuses it as it was signed.
    Unsupported(String),
    /// There was no answer.
    Failed(String),
}

/// State that the probes share.
pub(super) struct ProbeSetup {
    /// Holds [`OTHER`], and is what is copied.
    pub source: ObjectKey,
    /// Anyone may read every object: whether one was published cannot be seen.
    pub is_open: bool,
}

impl ProbeSetup {
    pub async fn prepare(context: &ProbeContext<'_>) -> Result<Self, StoreError> {
        let source = context.key("source");
        put_as_signed(context, &source).await?;
        let is_open = context.read_unsigned(&source).await?.is_success();
        Ok(Self { source, is_open })
    }
}

/// Puts [`OTHER`]. A store that refuses that, before the questions or after them, has not answered them.
///
/// # Errors
/// [`StoreError`] when it is not there then.
pub(super) async fn put_as_signed(context: &ProbeContext<'_>, key: &ObjectKey) -> Result<(), StoreError> {
    let put = context.presigned_put(key, OTHER)?;
    let response = context.wire.send(Method::PUT, &put.url, &put.headers(), put.body.clone()).await?;
    if response.is_success() {
        return Ok(());
    }
    Err(StoreError::Objects { operation: "presigned PUT", reason: response.describe() })
}

/// Asks each question of a deviation that `wanted` takes, of the kinds of request that the store has.
pub(super) async fn run_probes(
    context: &ProbeContext<'_>,
    setup: &ProbeSetup,
    wanted: fn(Deviation) -> bool,
) -> Vec<ProbeResult> {
    let questions = PROBES.iter().filter(|(deviation, _)| *deviation == Deviation::Nothing || wanted(*deviation));
    let questions: Vec<_> = questions.flat_map(|(deviation, kinds)| kinds.iter().map(|kind| (*deviation, *kind))).collect();
    let asked = stream::iter(questions).map(|(deviation, kind)| async move {
        let outcome = DeviationProbe { context, setup, deviation, kind }.ask().await;
        let outcome = outcome.unwrap_or_else(|error| match error {
            error if error.is_final() => ProbeOutcome::Unsupported(error.to_string()),
            error => ProbeOutcome::Failed(error.to_string()),
        });
        ProbeResult { deviation, kind, outcome }
    });
    let (as_signed, mut asked): (Vec<_>, Vec<_>) = asked
        .buffered(MAX_CONCURRENT)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .partition(|asked| asked.deviation == Deviation::Nothing);
    for ProbeResult { kind, outcome, .. } in as_signed {
        // What stands only because everything is refused.
        let stands = asked.iter_mut().filter(|asked| asked.kind == kind && matches!(asked.outcome, ProbeOutcome::Enforced));
        match outcome {
            ProbeOutcome::Unsupported(why) => stands.for_each(|asked| asked.outcome = ProbeOutcome::Unsupported(why.clone())),
            ProbeOutcome::Failed(why) => stands.for_each(|asked| asked.outcome = ProbeOutcome::Failed(why.clone())),
            ProbeOutcome::Enforced | ProbeOutcome::Obeyed(_) | ProbeOutcome::Unobservable => {}
        }
    }
    asked
}

/// One question.
struct DeviationProbe<'a> {
    context: &'a ProbeContext<'a>,
    setup: &'a ProbeSetup,
    deviation: Deviation,
    kind: RequestKind,
}

impl DeviationProbe<'_> {
    async fn ask(&self) -> Result<ProbeOutcome, StoreError> {
        let mut key = self.context.key(&probe_names::trial(self.kind, self.deviation));
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
                let got = reject_outage(self.context.get(&self.changed(url), &[]).await?)?;
                return Ok(match self.deviation {
                    Deviation::Nothing => taken(got.is_success(), &got),
                    _ => fell(got.is_success(), &got, "read"),
                });
            }
        };
        self.judge(&key, &response).await
    }

    async fn judge(&self, key: &ObjectKey, response: &Response) -> Result<ProbeOutcome, StoreError> {
        let stored = self.context.read(key).await?;
        let keeps = |name: &str| !matches!(stored.header(name), "" | "0");
        Ok(match self.deviation {
            Deviation::Nothing => taken(response.is_success() && stored.is_success(), response),
            Deviation::CopySource => fell(stored.is_success() && stored.body == OTHER.as_slice(), response, "copied"),
            Deviation::Acl | Deviation::Grant if self.setup.is_open => ProbeOutcome::Unobservable,
            Deviation::Acl | Deviation::Grant => {
                fell(self.context.read_unsigned(key).await?.is_success(), response, "anyone may read it")
            }
            Deviation::Metadata => fell(keeps("x-amz-meta-valet-check"), response, "kept"),
            Deviation::Tagging => {
                let kept = keeps("x-amz-tagging-count") || stored.is_success() && self.has_tags(key).await?;
                fell(kept, response, "kept")
            }
            Deviation::Redirect => fell(keeps("x-amz-website-redirect-location"), response, "kept"),
            Deviation::CustomerKey | Deviation::StorageClass => {
                fell(response.is_success() && !stored.is_success(), response, "cannot be read any more")
            }
            _ if stored.is_success() && !response.is_success() => fell(true, response, "yet stored"),
            _ => fell(stored.is_success() || response.is_success(), response, "taken"),
        })
    }

    /// Whether the object has tags. LocalStack leaves their count out of a GET where the bucket has versions.
    async fn has_tags(&self, key: &ObjectKey) -> Result<bool, StoreError> {
        let url = self.context.presign(&PresignRequest {
            method: "GET",
            key: key.as_str(),
            headers: &[],
            query: &[("tagging", "")],
        })?;
        let listed = reject_outage(self.context.get(&url, &[]).await?)?;
        Ok(listed.is_success() && String::from_utf8_lossy(&listed.body).contains("<Key>"))
    }

    fn validity(&self) -> UrlValidity {
        if self.deviation == Deviation::Expired { UrlValidity::Expired } else { UrlValidity::Current }
    }

    /// The URL as it is sent.
    fn changed(&self, mut url: String) -> String {
        match self.deviation {
            Deviation::Signature => tamper(&mut url),
            Deviation::Query => url.push_str("&response-content-disposition=inline"),
            _ => {}
        }
        url
    }

    fn body(&self) -> Bytes {
        let longer = if self.deviation == Deviation::Length { OTHER.as_slice() } else { &[] };
        [BODY.as_slice(), longer].concat().into()
    }

    fn added(&self) -> Vec<(&'static str, String)> {
        self.deviation.headers(&self.context.prober.copy_source(&self.setup.source))
    }

    /// The deviating headers come last, and replace signed ones.
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
            // Else it is left out.
            headers.push(("content-length", "0"));
        }
        reject_outage(self.context.wire.send(method, &self.changed(url), &headers, body).await?)
    }

    async fn put(&self, key: &ObjectKey) -> Result<Response, StoreError> {
        let (at, ttl) = self.context.validity(self.validity());
        if self.deviation == Deviation::Length {
            // Without a checksum, which would refuse other bytes as well.
            let length = BODY.len().to_string();
            let headers = [("content-length", length.as_str())];
            let url =
                self.context.presign(&PresignRequest { method: "PUT", key: key.as_str(), headers: &headers, query: &[] })?;
            return self.send(Method::PUT, url, &[], self.body()).await;
        }
        let put = self.context.objects.presign_put_as(Sealing::Plain, key, new_object(BODY), at, ttl)?;
        self.send(Method::PUT, put.signed.url, &put.headers, self.body()).await
    }

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
            // A copy has no body: stores differ in what they make of one, and of a copy without a range.
            let is_bare = self.kind == RequestKind::AnyPart && self.deviation == Deviation::CopySource;
            let body = if is_bare { Bytes::new() } else { self.body() };
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

    /// A part as it should be.
    async fn put_part(&self, key: &ObjectKey, upload: &str) -> Result<(), StoreError> {
        let (at, ttl) = self.context.validity(UrlValidity::Current);
        let url = self.context.objects.presign_any_part(key, upload, 1, at, ttl)?.url;
        reject_outage(self.context.wire.send(Method::PUT, &url, &[], Bytes::from_static(BODY)).await?).map(drop)
    }

    /// Makes the part an object, if there is one.
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

    /// The deviation as a field, then as a header of the request: stores obey the one or the other.
    async fn form(&self, key: &ObjectKey) -> Result<ProbeOutcome, StoreError> {
        let life = self.validity();
        let fields: Vec<_> = self.added().into_iter().map(as_field).collect();
        let form = self.context.signed_form(key, life)?;
        let response = reject_outage(send_form(self.context, &form, &fields, &[], Some(self.deviation)).await?)?;
        let by_field = self.judge(key, &response).await?;
        let has_header = self.deviation.headers("").iter().any(|(name, _)| name.starts_with("x-amz-"));
        if !has_header || matches!(by_field, ProbeOutcome::Obeyed(_)) {
            return Ok(by_field);
        }
        let key = self.context.by_header(key);
        let form = self.context.signed_form(&key, life)?;
        let response = reject_outage(send_form(self.context, &form, &[], &self.added(), Some(self.deviation)).await?)?;
        self.judge(&key, &response).await
    }
}

/// The form field that does what the header does ("POST Object" in the S3 API reference).
fn as_field((name, value): (&'static str, String)) -> (&'static str, String) {
    match name {
        "x-amz-acl" => ("acl", value),
        "x-amz-tagging" => {
            ("tagging", "<Tagging><TagSet><Tag><Key>valet-check</Key><Value>unsigned</Value></Tag></TagSet></Tagging>".to_owned())
        }
        _ => (name, value),
    }
}

/// Sends a form with [`BODY`], as a browser does: the signed fields, then the file.
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
    context.wire.send(Method::POST, &form.url, &all, body.into()).await
}

fn tamper(text: &mut String) {
    let last = if text.pop() == Some('0') { '1' } else { '0' };
    text.push(last);
}

/// For a request as it was signed.
fn taken(taken: bool, response: &Response) -> ProbeOutcome {
    if taken { ProbeOutcome::Enforced } else { ProbeOutcome::Unsupported(response.describe()) }
}

fn fell(obeyed: bool, response: &Response, what: &str) -> ProbeOutcome {
    if obeyed { ProbeOutcome::Obeyed(format!("{}, {what}", response.describe())) } else { ProbeOutcome::Enforced }
}
