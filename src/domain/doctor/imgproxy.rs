//! Checks imgproxy: that it makes a picture of an object in the bucket, and only for URLs that Valet signed.

use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;

use super::{Answer, Report, answer_if, answer_or_no, probe_context::ProbeContext, rules};
use crate::{
    config::Config,
    signer::{Imgproxy, ImgproxySource},
    store::{StoreError, objects::http_probe::Method},
};

/// A picture of one pixel (PNG).
const PICTURE: &[u8] =
    b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3A\x7E\x9BU\0\0\0\nIDATx\xDAc\x60\0\0\0\x02\0\x01\xE5\x27\xDE\xFC\0\0\0\0IEND\xAEB\x60\x82";
/// Lifetime of the URLs that are requested.
const TTL: Duration = Duration::from_secs(5 * 60);
/// Time since the expiry of an expired URL.
const EXPIRED: Duration = Duration::from_secs(60 * 60);

/// Checks the rules about imgproxy; skips them if it is not configured.
pub(super) async fn examine(context: &ProbeContext<'_>, config: &Config, report: &mut Report) {
    let Some(imgproxy) = config.previews.imgproxy() else {
        for rule in [&rules::IMGPROXY, &rules::IMGPROXY_SIGNATURE] {
            report.add(rule, Answer::Skipped("IMGPROXY_URL is not set".to_owned()));
        }
        return;
    };
    let key = context.key("picture");
    let source = ImgproxySource { bucket: &config.s3.bucket, key: key.as_str(), longest_side: 640 };
    let now = OffsetDateTime::now_utc();
    let (valid, expired) = (imgproxy.url(source, now + TTL), imgproxy.url(source, now - EXPIRED));
    let picture = match upload(context, &key).await {
        Ok(()) => answer_or_no(picture(context, &valid).await),
        Err(error) => Answer::Skipped(format!("no object could be written: {error}")),
    };
    let is_made = matches!(picture, Answer::Yes(_));
    report.add(&rules::IMGPROXY, picture);
    let refused = match refusals(context, imgproxy, &valid, &expired).await {
        Ok(Answer::Yes(_)) if !is_made => Answer::Skipped("it makes no picture for a signed URL either".to_owned()),
        refused => answer_or_no(refused),
    };
    report.add(&rules::IMGPROXY_SIGNATURE, refused);
}

/// Uploads the picture to the bucket.
async fn upload(context: &ProbeContext<'_>, key: &crate::model::ObjectKey) -> Result<(), StoreError> {
    let put = context.presigned_put(key, PICTURE)?;
    let response = context.http.send(Method::PUT, &put.url, &put.headers(), Bytes::from_static(PICTURE)).await?;
    if response.is_success() {
        return Ok(());
    }
    Err(StoreError::Objects { operation: "presigned PUT", reason: response.describe() })
}

/// Checks that imgproxy answers a valid URL with an image.
async fn picture(context: &ProbeContext<'_>, url: &str) -> Result<Answer, StoreError> {
    let answer = context.get(url, &[]).await?;
    let is_picture = answer.is_success() && answer.header("content-type").starts_with("image/");
    Ok(answer_if(is_picture, answer.describe()))
}

/// Checks that URLs are refused that Valet has not signed, or that have expired.
async fn refusals(context: &ProbeContext<'_>, imgproxy: &Imgproxy, valid: &str, expired: &str) -> Result<Answer, StoreError> {
    let path = valid.strip_prefix(&imgproxy.base_url).and_then(|path| path.get(1..)).unwrap_or_default();
    let (signature, rest) = path.split_once('/').unwrap_or_default();
    let base = &imgproxy.base_url;
    let changed = format!("{base}/{signature}/{}", rest.replace("rs:fit:640:640", "rs:fit:641:641"));
    let mut accepted = Vec::new();
    for (label, url) in
        [("without a signature", format!("{base}/unsafe/{rest}")), ("changed", changed), ("expired", expired.to_owned())]
    {
        if context.get(&url, &[]).await?.is_success() {
            accepted.push(label);
        }
    }
    Ok(answer_if(
        accepted.is_empty(),
        if accepted.is_empty() { String::new() } else { format!("accepted: {}", accepted.join(", ")) },
    ))
}
