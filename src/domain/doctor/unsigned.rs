//! Evaluates the probes of `probe_matrix`: one answer per rule of the doctor, and the treatment of unsigned headers for the
//! server.

use bytes::Bytes;

use super::{
    Answer, Report,
    deviation_probes::{ProbeOutcome, ProbeResult, ProbeSetup, put_as_signed, run_probes},
    probe_context::{BODY, ProbeContext, UrlValidity, new_object, outage_as_error},
    probe_matrix::Deviation,
    probe_names::{self, SEALED},
    rules,
};
use crate::{
    domain::store_capabilities::{UnsignedHeaders, UploadSafety},
    store::{
        StoreError,
        objects::{Sealing, http_probe::Method},
    },
};

/// Adds one answer per rule, and whether sealing helps if it is needed.
pub(super) async fn examine(context: &ProbeContext<'_>, report: &mut Report) {
    let results = match ProbeSetup::prepare(context).await {
        Ok(setup) => {
            let results = run_probes(context, &setup, |_| true).await;
            report.add(&rules::SEALED, sealed_answer(context, &setup, &results).await);
            results
        }
        Err(error) => return report.add(&rules::SIGNATURE, Answer::No(error.to_string())),
    };
    let rules =
        [&rules::SIGNATURE, &rules::EXPIRY, &rules::LENGTH, &rules::TYPE, &rules::UNSIGNED, &rules::COPY_SOURCE, &rules::ACL];
    for rule in rules {
        let rule_results: Vec<_> = results.iter().filter(|result| result.deviation.rule() == Some(rule)).collect();
        report.add(rule, answer(&rule_results));
    }
}

/// Returns one answer for a rule, over all kinds of request. Unsupported kinds are listed, and are not failures here: other rules
/// check them.
fn answer(results: &[&ProbeResult]) -> Answer {
    let is_unsupported = |result: &&&ProbeResult| match result.outcome {
        ProbeOutcome::Unsupported(_) => true,
        ProbeOutcome::Failed(_) => result.kind.is_multipart(),
        _ => false,
    };
    let mut faults = Vec::new();
    for ProbeResult { deviation, kind, outcome } in results.iter().copied() {
        match outcome {
            ProbeOutcome::Obeyed(seen) => faults.push(format!("{}, {}: {seen}", kind.as_str(), deviation.as_str())),
            ProbeOutcome::Failed(why) if !kind.is_multipart() => faults.push(format!("{}: {why}", kind.as_str())),
            _ => {}
        }
    }
    let names = |is_wanted: &dyn Fn(&&&ProbeResult) -> bool| {
        let mut names: Vec<_> = results.iter().filter(|result| is_wanted(result)).map(|result| result.kind.as_str()).collect();
        let mut seen = Vec::new();
        names.retain(|name| {
            !seen.contains(name) && {
                seen.push(*name);
                true
            }
        });
        names.join(", ")
    };
    if !faults.is_empty() {
        return Answer::No(faults.join("; "));
    }
    match (names(&|result| matches!(result.outcome, ProbeOutcome::Enforced)), names(&is_unsupported)) {
        (enforced, _)
            if enforced.is_empty() && results.iter().any(|result| matches!(result.outcome, ProbeOutcome::Unobservable)) =>
        {
            Answer::Skipped("anyone may read every object".to_owned())
        }
        (enforced, unsupported) if enforced.is_empty() => Answer::Skipped(format!("not supported: {unsupported}")),
        (enforced, unsupported) if unsupported.is_empty() => Answer::Yes(enforced),
        (enforced, unsupported) => Answer::Yes(format!("{enforced}; not supported: {unsupported}")),
    }
}

/// Returns the answer of the rule about sealed PUTs, which are needed if the store obeys a critical header of a PUT.
async fn sealed_answer(context: &ProbeContext<'_>, setup: &ProbeSetup, results: &[ProbeResult]) -> Answer {
    let is_critical = |result: &ProbeResult| {
        result.deviation.is_critical() && result.kind.has_digest() && matches!(result.outcome, ProbeOutcome::Obeyed(_))
    };
    if !results.iter().any(is_critical) {
        return Answer::Skipped("sealed PUTs are not needed".to_owned());
    }
    match can_seal(context, setup).await {
        Ok(true) => Answer::Yes("PUT, preview PUT".to_owned()),
        Ok(false) => Answer::No("the store refuses a sealed PUT, or obeys the header".to_owned()),
        Err(error) => Answer::No(error.to_string()),
    }
}

/// Probes the unsigned headers that decide which uploads the server opens.
pub(super) async fn probe_headers(context: &ProbeContext<'_>) -> Result<UnsignedHeaders, StoreError> {
    let setup = ProbeSetup::prepare(context).await?;
    let results = run_probes(context, &setup, Deviation::is_critical).await;
    // Whether the URL of a PUT can be used to copy another object, and to make its object public; descriptions of all headers that
    // the store obeys; whether a probe got no answer.
    let (mut copies, mut publishes, mut obeyed, mut unanswered) = (false, false, Vec::new(), false);
    for ProbeResult { deviation, kind, outcome } in &results {
        match outcome {
            ProbeOutcome::Enforced | ProbeOutcome::Unobservable => {}
            ProbeOutcome::Obeyed(_) => {
                copies |= kind.has_digest() && *deviation == Deviation::CopySource;
                publishes |= kind.has_digest() && *deviation != Deviation::CopySource;
                obeyed.push(format!("{} of a {}", deviation.as_str(), kind.as_str()));
            }
            ProbeOutcome::Unsupported(why) | ProbeOutcome::Failed(why) if kind.has_digest() => {
                return Err(StoreError::Objects { operation: "presigned PUT", reason: why.clone() });
            }
            // A kind of request that the store does not support cannot be abused.
            ProbeOutcome::Unsupported(_) => {}
            ProbeOutcome::Failed(_) => unanswered = true,
        }
    }
    let sealing_helps = (copies || publishes) && can_seal(context, &setup).await?;
    let put_sealing = if sealing_helps { Sealing::Sealed } else { Sealing::Plain };
    // If the store rejects a valid PUT now, its rejections of the probes prove nothing.
    put_as_signed(context, &context.key("afterwards")).await?;
    Ok(UnsignedHeaders {
        with_digest: match (put_sealing, publishes, copies) {
            (Sealing::Plain, true, _) => UploadSafety::Unsafe,
            (Sealing::Plain, false, true) => UploadSafety::SafeIfCopied,
            _ => UploadSafety::Safe,
        },
        without_digest: match (obeyed.is_empty(), unanswered) {
            (false, _) => UploadSafety::Unsafe,
            (true, true) => UploadSafety::Unknown,
            (true, false) => UploadSafety::Safe,
        },
        put_sealing,
        is_public: setup.is_public,
        obeyed,
    })
}

/// Returns whether the store accepts a sealed PUT, and refuses it with each of the critical headers.
async fn can_seal(context: &ProbeContext<'_>, setup: &ProbeSetup) -> Result<bool, StoreError> {
    let (at, ttl) = context.validity(UrlValidity::Current);
    for deviation in SEALED {
        let key = context.key(&probe_names::sealed(deviation));
        let put = context.objects.presign_put_as(Sealing::Sealed, &key, new_object(BODY), at, ttl)?;
        let added = deviation.map(|deviation| deviation.headers(&context.prober.copy_source(&setup.source))).unwrap_or_default();
        let headers: Vec<_> = put.headers.iter().chain(&added).map(|(name, value)| (*name, value.as_str())).collect();
        let response =
            outage_as_error(context.http.send(Method::PUT, &put.signed.url, &headers, Bytes::from_static(BODY)).await?)?;
        if response.is_success() != deviation.is_none() || context.read(&key).await?.is_success() != deviation.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
