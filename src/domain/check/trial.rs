//! Asking the questions of the table (`kinds`): each makes an object of its own, deviates once, and looks what came of it.

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{
    kinds::{Deviation, Kind, QUESTIONS},
    lab::{BODY, Lab, Life, OTHER, TYPE, calm, new_object},
    names,
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
const AT_ONCE: usize = 16;
const BOUNDARY: &str = "valet-check";

/// A question and what came of it.
pub(super) struct Asked {
    pub deviation: Deviation,
    pub kind: Kind,
    pub verdict: Verdict,
}

/// Whether a signed request stands a deviation, with what was seen.
pub(super) enum Verdict {
    /// The store refused it, or took no notice of it.
    Stands,
    /// The store obeyed.
    Falls(String),
    /// Anyone may read every object, so that nothing can be published: another rule says so.
    Moot,
    /// The store does not have this kind of request: it refuses it as it was signed.
    Lacking(String),
    /// There was no answer.
    Unasked(String),
}

/// State that the probes share.
pub(super) struct Ground {
    /// Holds [`OTHER`], and is what is copied.
    pub source: ObjectKey,
    /// Anyone may read every object: whether one was published cannot be seen.
    pub is_open: bool,
}

impl Ground {
    pub async fn prepare(lab: &Lab<'_>) -> Result<Self, StoreError> {
        let source = lab.key("source");
        put_as_signed(lab, &source).await?;
        let is_open = lab.read_unsigned(&source).await?.is_success();
        Ok(Self { source, is_open })
    }
}

/// Puts [`OTHER`]. A store that refuses that, before the questions or after them, has not answered them.
///
/// # Errors
/// [`StoreError`] when it is not there then.
pub(super) async fn put_as_signed(lab: &Lab<'_>, key: &ObjectKey) -> Result<(), StoreError> {
    let put = lab.presigned_put(key, OTHER)?;
    let response = lab.wire.send(Method::PUT, &put.url, &put.headers(), put.body.clone()).await?;
    if response.is_success() {
        return Ok(());
    }
    Err(StoreError::Objects { operation: "presigned PUT", reason: response.describe() })
}

/// Asks each question of a deviation that `wanted` takes, of the kinds of request that the store has.
pub(super) async fn ask_all(lab: &Lab<'_>, ground: &Ground, wanted: fn(Deviation) -> bool) -> Vec<Asked> {
    let questions = QUESTIONS.iter().filter(|(deviation, _)| *deviation == Deviation::Nothing || wanted(*deviation));
    let questions: Vec<_> = questions.flat_map(|(deviation, kinds)| kinds.iter().map(|kind| (*deviation, *kind))).collect();
    let asked = stream::iter(questions).map(|(deviation, kind)| async move {
        let verdict = Trial { lab, ground, deviation, kind }.ask().await;
        let verdict = verdict.unwrap_or_else(|error| match error {
            error if error.is_final() => Verdict::Lacking(error.to_string()),
            error => Verdict::Unasked(error.to_string()),
        });
        Asked { deviation, kind, verdict }
    });
    let (as_signed, mut asked): (Vec<_>, Vec<_>) =
        asked.buffered(AT_ONCE).collect::<Vec<_>>().await.into_iter().partition(|asked| asked.deviation == Deviation::Nothing);
    for Asked { kind, verdict, .. } in as_signed {
        // What stands only because everything is refused.
        let stands = asked.iter_mut().filter(|asked| asked.kind == kind && matches!(asked.verdict, Verdict::Stands));
        match verdict {
            Verdict::Lacking(why) => stands.for_each(|asked| asked.verdict = Verdict::Lacking(why.clone())),
            Verdict::Unasked(why) => stands.for_each(|asked| asked.verdict = Verdict::Unasked(why.clone())),
            Verdict::Stands | Verdict::Falls(_) | Verdict::Moot => {}
        }
    }
    asked
}

/// One question.
struct Trial<'a> {
    lab: &'a Lab<'a>,
    ground: &'a Ground,
    deviation: Deviation,
    kind: Kind,
}

impl Trial<'_> {
    async fn ask(&self) -> Result<Verdict, StoreError> {
        let mut key = self.lab.key(&names::trial(self.kind, self.deviation));
        let response = match self.kind {
            Kind::Put => self.put(&key).await?,
            Kind::Preview => {
                key = self.lab.preview(&key);
                self.put(&key).await?
            }
            Kind::Part | Kind::AnyPart => self.part(&key).await?,
            Kind::Create => self.create(&key).await?,
            Kind::Complete => self.complete(&key).await?,
            Kind::Form => return self.form(&key).await,
            Kind::Get => {
                let (at, ttl) = self.lab.life(self.life());
                let url = self.lab.objects.presign_get(&self.ground.source, TYPE, "private", at, ttl)?.url;
                let got = calm(self.lab.get(&self.changed(url), &[]).await?)?;
                return Ok(match self.deviation {
                    Deviation::Nothing => taken(got.is_success(), &got),
                    _ => fell(got.is_success(), &got, "read"),
                });
            }
        };
        self.judge(&key, &response).await
    }

    async fn judge(&self, key: &ObjectKey, response: &Response) -> Result<Verdict, StoreError> {
        let stored = self.lab.read(key).await?;
        let keeps = |name: &str| !matches!(stored.header(name), "" | "0");
        Ok(match self.deviation {
            Deviation::Nothing => taken(response.is_success() && stored.is_success(), response),
            Deviation::CopySource => fell(stored.is_success() && stored.body == OTHER.as_slice(), response, "copied"),
            Deviation::Acl | Deviation::Grant if self.ground.is_open => Verdict::Moot,
            Deviation::Acl | Deviation::Grant => {
                fell(self.lab.read_unsigned(key).await?.is_success(), response, "anyone may read it")
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
        let url =
            self.lab.presign(&PresignRequest { method: "GET", key: key.as_str(), headers: &[], query: &[("tagging", "")] })?;
        let listed = calm(self.lab.get(&url, &[]).await?)?;
        Ok(listed.is_success() && String::from_utf8_lossy(&listed.body).contains("<Key>"))
    }

    fn life(&self) -> Life {
        if self.deviation == Deviation::Expired { Life::Over } else { Life::Now }
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
        self.deviation.headers(&self.lab.prober.copy_source(&self.ground.source))
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
        calm(self.lab.wire.send(method, &self.changed(url), &headers, body).await?)
    }

    async fn put(&self, key: &ObjectKey) -> Result<Response, StoreError> {
        let (at, ttl) = self.lab.life(self.life());
        if self.deviation == Deviation::Length {
            // Without a checksum, which would refuse other bytes as well.
            let length = BODY.len().to_string();
            let headers = [("content-length", length.as_str())];
            let url = self.lab.presign(&PresignRequest { method: "PUT", key: key.as_str(), headers: &headers, query: &[] })?;
            return self.send(Method::PUT, url, &[], self.body()).await;
        }
        let put = self.lab.objects.presign_put_as(Sealing::Plain, key, new_object(BODY), at, ttl)?;
        self.send(Method::PUT, put.signed.url, &put.headers, self.body()).await
    }

    async fn part(&self, key: &ObjectKey) -> Result<Response, StoreError> {
        let (at, ttl) = self.lab.life(self.life());
        let upload = self.lab.prober.begin(key, PartChecksums::None).await?;
        let sent = async {
            let url = if self.kind == Kind::AnyPart {
                self.lab.objects.presign_any_part(key, &upload, 1, at, ttl)?.url
            } else {
                let part = NewPart { number: 1, length: BODY.len() as u64, sha256: None };
                self.lab.objects.presign_part(key, &upload, part, at, ttl)?.signed.url
            };
            // A copy has no body: stores differ in what they make of one, and of a copy without a range.
            let is_bare = self.kind == Kind::AnyPart && self.deviation == Deviation::CopySource;
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
        let (at, ttl) = self.lab.life(self.life());
        let url = self.lab.objects.presign_multipart_call(key, MultipartCall::Create, at, ttl)?.url;
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
        let (at, ttl) = self.lab.life(self.life());
        let upload = self.lab.prober.begin(key, PartChecksums::None).await?;
        let sent = async {
            self.put_part(key, &upload).await?;
            let etag = self.lab.prober.parts(key, &upload).await?.unwrap_or_default().pop().map(|part| part.etag);
            let part = format!("<Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part>", etag.unwrap_or_default());
            let body = format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>");
            let url = self.lab.objects.presign_multipart_call(key, MultipartCall::Complete(&upload), at, ttl)?.url;
            self.send(Method::POST, url, &[], body.into()).await
        };
        let sent = sent.await;
        self.abort_unfinished(key, &upload).await;
        sent
    }

    /// A part as it should be.
    async fn put_part(&self, key: &ObjectKey, upload: &str) -> Result<(), StoreError> {
        let (at, ttl) = self.lab.life(Life::Now);
        let url = self.lab.objects.presign_any_part(key, upload, 1, at, ttl)?.url;
        calm(self.lab.wire.send(Method::PUT, &url, &[], Bytes::from_static(BODY)).await?).map(drop)
    }

    /// Makes the part an object, if there is one.
    async fn finish(&self, key: &ObjectKey, upload: &str) -> Result<(), StoreError> {
        if let Some(part) = self.lab.prober.parts(key, upload).await?.unwrap_or_default().first() {
            self.lab.prober.complete_once(key, upload, &part.etag).await?;
        }
        Ok(())
    }

    async fn abort_unfinished(&self, key: &ObjectKey, upload: &str) {
        if let Err(error) = self.lab.prober.abort(key, upload).await {
            tracing::warn!(%error, "failed to abort a multipart upload of this check");
        }
    }

    /// The deviation as a field, then as a header of the request: stores obey the one or the other.
    async fn form(&self, key: &ObjectKey) -> Result<Verdict, StoreError> {
        let life = self.life();
        let fields: Vec<_> = self.added().into_iter().map(as_field).collect();
        let form = self.lab.signed_form(key, life)?;
        let response = calm(send_form(self.lab, &form, &fields, &[], Some(self.deviation)).await?)?;
        let by_field = self.judge(key, &response).await?;
        let has_header = self.deviation.headers("").iter().any(|(name, _)| name.starts_with("x-amz-"));
        if !has_header || matches!(by_field, Verdict::Falls(_)) {
            return Ok(by_field);
        }
        let key = self.lab.by_header(key);
        let form = self.lab.signed_form(&key, life)?;
        let response = calm(send_form(self.lab, &form, &[], &self.added(), Some(self.deviation)).await?)?;
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
    lab: &Lab<'_>,
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
    lab.wire.send(Method::POST, &form.url, &all, body.into()).await
}

fn tamper(text: &mut String) {
    let last = if text.pop() == Some('0') { '1' } else { '0' };
    text.push(last);
}

/// For a request as it was signed.
fn taken(taken: bool, response: &Response) -> Verdict {
    if taken { Verdict::Stands } else { Verdict::Lacking(response.describe()) }
}

fn fell(obeyed: bool, response: &Response, what: &str) -> Verdict {
    if obeyed { Verdict::Falls(format!("{}, {what}", response.describe())) } else { Verdict::Stands }
}
