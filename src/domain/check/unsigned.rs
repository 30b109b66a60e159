//! What the answers to the table's questions amount to: lines of the doctor's table, and which uploads the store can stand.

use bytes::Bytes;

use super::{
    Answer, Report,
    kinds::Deviation,
    lab::{BODY, Lab, Life, calm, new_object},
    names::{self, SEALED},
    rules,
    trial::{Asked, Ground, Verdict, ask_all, put_as_signed},
};
use crate::{
    domain::finalize::{Standing, Unsigned},
    store::{
        StoreError,
        objects::{Sealing, http_probe::Method},
    },
};

/// Adds the answers, one for each rule, and whether sealing helps where it is needed.
pub(super) async fn examine(lab: &Lab<'_>, report: &mut Report) {
    let asked = match Ground::prepare(lab).await {
        Ok(ground) => {
            let asked = ask_all(lab, &ground, |_| true).await;
            report.add(&rules::SEALED, sealed_answer(lab, &ground, &asked).await);
            asked
        }
        Err(error) => return report.add(&rules::SIGNATURE, Answer::No(error.to_string())),
    };
    let rules =
        [&rules::SIGNATURE, &rules::EXPIRY, &rules::LENGTH, &rules::TYPE, &rules::UNSIGNED, &rules::COPY_SOURCE, &rules::ACL];
    for rule in rules {
        let of_rule: Vec<_> = asked.iter().filter(|asked| asked.deviation.rule() == Some(rule)).collect();
        report.add(rule, answer(&of_rule));
    }
}

/// One answer for one guarantee, of every kind of request. A kind that the store does not have is named, and no fault here: other
/// rules ask for it.
fn answer(asked: &[&Asked]) -> Answer {
    let is_lacking = |asked: &&&Asked| match asked.verdict {
        Verdict::Lacking(_) => true,
        Verdict::Unasked(_) => asked.kind.is_multipart(),
        _ => false,
    };
    let mut faults = Vec::new();
    for Asked { deviation, kind, verdict } in asked.iter().copied() {
        match verdict {
            Verdict::Falls(seen) => faults.push(format!("{}, {}: {seen}", kind.as_str(), deviation.as_str())),
            Verdict::Unasked(why) if !kind.is_multipart() => faults.push(format!("{}: {why}", kind.as_str())),
            _ => {}
        }
    }
    let names = |of: &dyn Fn(&&&Asked) -> bool| {
        let mut names: Vec<_> = asked.iter().filter(|asked| of(asked)).map(|asked| asked.kind.as_str()).collect();
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
    match (names(&|asked| matches!(asked.verdict, Verdict::Stands)), names(&is_lacking)) {
        (stand, _) if stand.is_empty() && asked.iter().any(|asked| matches!(asked.verdict, Verdict::Moot)) => {
            Answer::Skipped("anyone may read every object".to_owned())
        }
        (stand, lacking) if stand.is_empty() => Answer::Skipped(format!("not to be asked of {lacking}")),
        (stand, lacking) if lacking.is_empty() => Answer::Yes(stand),
        (stand, lacking) => Answer::Yes(format!("{stand}; not to be asked of {lacking}")),
    }
}

async fn sealed_answer(lab: &Lab<'_>, ground: &Ground, asked: &[Asked]) -> Answer {
    let falls =
        |asked: &Asked| asked.deviation.decides() && asked.kind.has_digest() && matches!(asked.verdict, Verdict::Falls(_));
    if !asked.iter().any(falls) {
        return Answer::Skipped("the store needs no sealed PUT".to_owned());
    }
    match can_seal(lab, ground).await {
        Ok(true) => Answer::Yes("PUT, preview PUT".to_owned()),
        Ok(false) => Answer::No("the store refuses it, or obeys all the same".to_owned()),
        Err(error) => Answer::No(error.to_string()),
    }
}

/// What the server needs to know: which uploads the store can stand.
pub(super) async fn unsigned(lab: &Lab<'_>) -> Result<Unsigned, StoreError> {
    let ground = Ground::prepare(lab).await?;
    let asked = ask_all(lab, &ground, Deviation::decides).await;
    let (mut copies, mut publishes, mut taken, mut unasked) = (false, false, Vec::new(), false);
    for Asked { deviation, kind, verdict } in &asked {
        match verdict {
            Verdict::Stands | Verdict::Moot => {}
            Verdict::Falls(_) => {
                copies |= kind.has_digest() && *deviation == Deviation::CopySource;
                publishes |= kind.has_digest() && *deviation != Deviation::CopySource;
                taken.push(format!("{} of a {}", deviation.as_str(), kind.as_str()));
            }
            Verdict::Lacking(why) | Verdict::Unasked(why) if kind.has_digest() => {
                return Err(StoreError::Objects { operation: "presigned PUT", reason: why.clone() });
            }
            // The kinds of request that the store does not have bring nothing.
            Verdict::Lacking(_) => {}
            Verdict::Unasked(_) => unasked = true,
        }
    }
    let helps = (copies || publishes) && can_seal(lab, &ground).await?;
    let puts = if helps { Sealing::Sealed } else { Sealing::Plain };
    put_as_signed(lab, &lab.key("afterwards")).await?;
    Ok(Unsigned {
        declared: match (puts, publishes, copies) {
            (Sealing::Plain, true, _) => Standing::Falls,
            (Sealing::Plain, false, true) => Standing::StandsCopied,
            _ => Standing::Stands,
        },
        is_open: ground.is_open,
        undeclared: match (taken.is_empty(), unasked) {
            (false, _) => Standing::Falls,
            (true, true) => Standing::Unknown,
            (true, false) => Standing::Stands,
        },
        puts,
        taken,
    })
}

/// Whether the store takes a sealed PUT, and refuses it with each of the headers that decide.
async fn can_seal(lab: &Lab<'_>, ground: &Ground) -> Result<bool, StoreError> {
    let (at, ttl) = lab.life(Life::Now);
    for deviation in SEALED {
        let key = lab.key(&names::sealed(deviation));
        let put = lab.objects.presign_put_as(Sealing::Sealed, &key, new_object(BODY), at, ttl)?;
        let added = deviation.map(|deviation| deviation.headers(&lab.prober.copy_source(&ground.source))).unwrap_or_default();
        let headers: Vec<_> = put.headers.iter().chain(&added).map(|(name, value)| (*name, value.as_str())).collect();
        let response = calm(lab.wire.send(Method::PUT, &put.signed.url, &headers, Bytes::from_static(BODY)).await?)?;
        if response.is_success() != deviation.is_none() || lab.read(&key).await?.is_success() != deviation.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
