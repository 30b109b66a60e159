//! Plants in what was answered: what the program cannot be made to say.

use super::Field;
use crate::{
    checker::evidence::Stranger,
    journal::{Answered, Asked, Call, Item, Op, now},
};

/// A call that was never made.
fn invented(field: &Field, user: &str, call: Call, asked: Vec<Item>, answered: Answered) -> Op {
    let op = field.base.record.ops.len() as u64 + 1_000_000;
    let asked = Asked { op, t0: now(), client: 0, user: user.to_owned(), call, server: None, repeats: None, items: asked };
    Op { asked, answered: Some(Answered { op, t1: now(), ..answered }) }
}

pub fn plant(field: &Field) {
    let image = field.acknowledged();
    let owner = field.timelines.images[image.id()].owners.first().unwrap().clone();
    let shown =
        |id: &str| Item { id: Some(id.to_owned()), status: Some(200), state: Some("ready".to_owned()), ..Item::default() };
    let page = |items: Vec<Item>| Answered { status: Some(200), items, ..Answered::default() };

    let deleted = field.deleted();
    let its_owner = field.timelines.images[deleted.id()].owners.first().unwrap().clone();
    field.answered("a deleted image is shown", &[5], |evidence| {
        evidence.record.ops.push(invented(field, &its_owner, Call::Image, vec![], page(vec![shown(deleted.id())])));
    });

    field.answered("other bytes were fetched", &[6], |evidence| {
        for digest in ["one", "another"] {
            let fetched = Item { sha256: Some(digest.to_owned()), ..shown(field.settled().id()) };
            evidence.record.ops.push(invented(field, &owner, Call::Get, vec![], page(vec![fetched])));
        }
    });

    field.answered("a version hides another", &[6], |evidence| {
        let mut hidden = evidence.object(image.key()).unwrap().clone();
        hidden.is_latest = false;
        evidence.objects.push(hidden);
    });

    let key = |id: &str| {
        let asked = Item { idem_key: Some("key".to_owned()), ..Item::default() };
        (vec![asked], page(vec![shown(id)]))
    };
    let another = field.base.ready().find(|other| {
        let timeline = field.timelines.images.get(other.id());
        other.id() != image.id()
            && timeline.is_some_and(|timeline| timeline.owners.contains(&owner) && timeline.delete_asked.is_none())
    });
    let another = another.expect("the load left two images of one user").id().to_owned();
    field.answered("one key was answered with two images", &[4], |evidence| {
        for id in [image.id(), &another] {
            let (asked, told) = key(id);
            evidence.record.ops.push(invented(field, &owner, Call::Issue, asked, told));
        }
    });

    field.answered("one account was made twice", &[4], |evidence| {
        let told = [("userId".to_owned(), uuid::Uuid::new_v4().to_string())].into();
        let answered = Answered { status: Some(201), told, ..Answered::default() };
        evidence.record.ops.push(invented(field, "nobody@example.com", Call::Signup, vec![], answered.clone()));
        let told = [("userId".to_owned(), uuid::Uuid::new_v4().to_string())].into();
        let again = Answered { told, ..answered };
        let mut again = invented(field, "nobody@example.com", Call::Signup, vec![], again);
        again.asked.op += 1;
        evidence.record.ops.push(again);
    });

    field.answered("another's image is told from none", &[7], |evidence| {
        let told = |code: &str| Item { status: Some(404), code: Some(code.to_owned()), ..Item::default() };
        let answered = page(vec![told("not_found"), told("not_yours")]);
        evidence.record.ops.push(invented(field, &owner, Call::Probe, vec![], answered));
    });

    field.answered("an image is shown to another", &[7], |evidence| {
        let stranger = field.timelines.accounts.keys().find(|email| **email != owner).unwrap();
        evidence.record.ops.push(invented(field, stranger, Call::Image, vec![], page(vec![shown(image.id())])));
    });

    field.answered("a ready image is pending again", &[8], |evidence| {
        let pending = Item { state: Some("pending".to_owned()), ..shown(image.id()) };
        evidence.record.ops.push(invented(field, &owner, Call::Renew, vec![], page(vec![pending])));
    });

    field.answered("more is used than may be", &[9], |evidence| {
        let told = [("bytes", "2"), ("quotaBytes", "1")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let answered = Answered { status: Some(200), told, ..Answered::default() };
        evidence.record.ops.push(invented(field, &owner, Call::Me, vec![], answered));
    });

    let (user, gallery) =
        field.base.galleries.iter().find(|(_, shown)| shown.as_ref().is_ok_and(|shown| shown.len() > 1)).unwrap();
    let gallery = gallery.clone().unwrap();
    let (mut swapped, mut short, mut double) = (gallery.clone(), gallery.clone(), gallery.clone());
    swapped.swap(0, 1);
    short.pop();
    double.push(gallery[0].clone());
    for (what, seen) in
        [("another order", Ok(swapped)), ("one too few", Ok(short)), ("one twice", Ok(double)), ("none", Err("500".to_owned()))]
    {
        field.answered(&format!("a gallery shows {what}"), &[10], |evidence| {
            evidence.galleries.insert(user.clone(), seen);
        });
    }

    for line in ["password valet-canary word", "GET /b/k?X-Amz-Signature=00", "hash $argon2id$v=19$"] {
        field.answered(&format!("the log says: {line}"), &[11], |evidence| evidence.log.push_str(&format!("\n{line}\n")));
    }

    for (what, status, code, body) in [
        ("of the inside", 503, Some("unavailable"), "{\"detail\":\"mongodb://10.0.0.1\"}"),
        ("500", 500, Some("internal"), "{}"),
        ("503 without a code", 503, None, "<html>"),
        ("504, and never more", 504, Some("timeout"), "{}"),
    ] {
        field.answered(&format!("a call was told {what}"), &[13], |evidence| {
            let (status, code, body) = (Some(status), code.map(str::to_owned), Some(body.to_owned()));
            let answered = Answered { status, code, body, ..Answered::default() };
            let failed = invented(field, &owner, Call::Me, vec![], answered);
            let op = failed.asked.op;
            evidence.record.ops.push(failed);
            if !what.contains("never more") {
                // It was asked again, and all was well.
                let mut again = invented(field, &owner, Call::Me, vec![], page(vec![]));
                (again.asked.op, again.asked.repeats) = (op + 1, Some(op));
                evidence.record.ops.push(again);
            }
        });
    }
    field.answered("a call was never answered", &[13], |evidence| {
        let lost = Answered { lost: Some("reset".to_owned()), ..Answered::default() };
        evidence.record.ops.push(invented(field, &owner, Call::Me, vec![], lost));
    });

    field.answered("a stranger reads", &[14], |evidence| {
        evidence.strangers.get_or_insert_default().push(Stranger { what: "GET".to_owned(), status: 200 });
    });
}
