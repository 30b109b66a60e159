//! Plants violations in recorded answers that the program cannot be made to give.

use super::CleanCluster;
use crate::{
    checker::evidence::AnonymousRequest,
    journal::{AnswerLine, Call, Exchange, Item, RequestLine, now},
};

/// Returns a call that no client made.
fn invented_call(clean: &CleanCluster, user: &str, call: Call, asked: Vec<Item>, answered: AnswerLine) -> Exchange {
    let op = clean.base.record.ops.len() as u64 + 1_000_000;
    let asked = RequestLine { op, t0: now(), client: 0, user: user.to_owned(), call, server: None, repeats: None, items: asked };
    Exchange { asked, answered: Some(AnswerLine { op, t1: now(), ..answered }) }
}

pub fn plant(clean: &CleanCluster) {
    let image = clean.acknowledged_image();
    let owner = clean.timelines.images[image.id()].owners.first().unwrap().clone();
    let shown =
        |id: &str| Item { id: Some(id.to_owned()), status: Some(200), state: Some("ready".to_owned()), ..Item::default() };
    let page = |items: Vec<Item>| AnswerLine { status: Some(200), items, ..AnswerLine::default() };

    let deleted = clean.deleted_image();
    let its_owner = clean.timelines.images[deleted.id()].owners.first().unwrap().clone();
    clean.assert_reports_change("a deleted image is shown", &[5], |evidence| {
        evidence.record.ops.push(invented_call(clean, &its_owner, Call::Image, vec![], page(vec![shown(deleted.id())])));
    });

    clean.assert_reports_change("other bytes were fetched", &[6], |evidence| {
        for digest in ["one", "another"] {
            let fetched = Item { sha256: Some(digest.to_owned()), ..shown(clean.image_confirmed_by_sweeper().id()) };
            evidence.record.ops.push(invented_call(clean, &owner, Call::Get, vec![], page(vec![fetched])));
        }
    });

    clean.assert_reports_change("a version hides another", &[6], |evidence| {
        let mut hidden = evidence.object(image.key()).unwrap().clone();
        hidden.is_latest = false;
        evidence.objects.push(hidden);
    });

    let key = |id: &str| {
        let asked = Item { idem_key: Some("key".to_owned()), ..Item::default() };
        (vec![asked], page(vec![shown(id)]))
    };
    let another = clean.base.ready().find(|other| {
        let timeline = clean.timelines.images.get(other.id());
        other.id() != image.id()
            && timeline.is_some_and(|timeline| timeline.owners.contains(&owner) && timeline.delete_asked.is_none())
    });
    let another = another.expect("the load left two images of one user").id().to_owned();
    clean.assert_reports_change("one idempotency key was answered with two images", &[4], |evidence| {
        for id in [image.id(), &another] {
            let (asked, told) = key(id);
            evidence.record.ops.push(invented_call(clean, &owner, Call::Issue, asked, told));
        }
    });

    clean.assert_reports_change("one account was created twice", &[4], |evidence| {
        let told = [("userId".to_owned(), uuid::Uuid::new_v4().to_string())].into();
        let answered = AnswerLine { status: Some(201), told, ..AnswerLine::default() };
        evidence.record.ops.push(invented_call(clean, "nobody@example.com", Call::Signup, vec![], answered.clone()));
        let told = [("userId".to_owned(), uuid::Uuid::new_v4().to_string())].into();
        let again = AnswerLine { told, ..answered };
        let mut again = invented_call(clean, "nobody@example.com", Call::Signup, vec![], again);
        again.asked.op += 1;
        evidence.record.ops.push(again);
    });

    clean.assert_reports_change("another user's image is answered differently from an unknown one", &[7], |evidence| {
        let told = |code: &str| Item { status: Some(404), code: Some(code.to_owned()), ..Item::default() };
        let answered = page(vec![told("not_found"), told("not_yours")]);
        evidence.record.ops.push(invented_call(clean, &owner, Call::Probe, vec![], answered));
    });

    clean.assert_reports_change("an image is shown to another user", &[7], |evidence| {
        let stranger = clean.timelines.accounts.keys().find(|email| **email != owner).unwrap();
        evidence.record.ops.push(invented_call(clean, stranger, Call::Image, vec![], page(vec![shown(image.id())])));
    });

    clean.assert_reports_change("a ready image is pending again", &[8], |evidence| {
        let pending = Item { state: Some("pending".to_owned()), ..shown(image.id()) };
        evidence.record.ops.push(invented_call(clean, &owner, Call::Renew, vec![], page(vec![pending])));
    });

    clean.assert_reports_change("usage exceeds the quota", &[9], |evidence| {
        let told = [("bytes", "2"), ("quotaBytes", "1")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let answered = AnswerLine { status: Some(200), told, ..AnswerLine::default() };
        evidence.record.ops.push(invented_call(clean, &owner, Call::Me, vec![], answered));
    });

    let (user, gallery) =
        clean.base.galleries.iter().find(|(_, shown)| shown.as_ref().is_ok_and(|shown| shown.len() > 1)).unwrap();
    let gallery = gallery.clone().unwrap();
    let (mut swapped, mut short, mut double) = (gallery.clone(), gallery.clone(), gallery.clone());
    swapped.swap(0, 1);
    short.pop();
    double.push(gallery[0].clone());
    for (what, seen) in
        [("another order", Ok(swapped)), ("one too few", Ok(short)), ("one twice", Ok(double)), ("none", Err("500".to_owned()))]
    {
        clean.assert_reports_change(&format!("a gallery shows {what}"), &[10], |evidence| {
            evidence.galleries.insert(user.clone(), seen);
        });
    }

    for line in ["password valet-canary word", "GET /b/k?X-Amz-Signature=00", "hash $argon2id$v=19$"] {
        clean.assert_reports_change(&format!("the log contains: {line}"), &[11], |evidence| {
            evidence.log.push_str(&format!("\n{line}\n"))
        });
    }

    for (what, status, code, body) in [
        ("with internals", 503, Some("unavailable"), "{\"detail\":\"mongodb://10.0.0.1\"}"),
        ("500", 500, Some("internal"), "{}"),
        ("503 without a code", 503, None, "<html>"),
        ("504, and never more", 504, Some("timeout"), "{}"),
    ] {
        clean.assert_reports_change(&format!("a call was answered {what}"), &[13], |evidence| {
            let (status, code, body) = (Some(status), code.map(str::to_owned), Some(body.to_owned()));
            let answered = AnswerLine { status, code, body, ..AnswerLine::default() };
            let failed = invented_call(clean, &owner, Call::Me, vec![], answered);
            let op = failed.asked.op;
            evidence.record.ops.push(failed);
            if !what.contains("never more") {
                // The failed call was repeated and succeeded.
                let mut again = invented_call(clean, &owner, Call::Me, vec![], page(vec![]));
                (again.asked.op, again.asked.repeats) = (op + 1, Some(op));
                evidence.record.ops.push(again);
            }
        });
    }
    clean.assert_reports_change("a call was never answered", &[13], |evidence| {
        let lost = AnswerLine { lost: Some("reset".to_owned()), ..AnswerLine::default() };
        evidence.record.ops.push(invented_call(clean, &owner, Call::Me, vec![], lost));
    });

    clean.assert_reports_change("a stranger reads", &[14], |evidence| {
        evidence.anonymous.get_or_insert_default().push(AnonymousRequest { what: "GET".to_owned(), status: 200 });
    });
}
