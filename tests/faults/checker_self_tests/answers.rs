//! Plants violations that the program cannot be made to produce: the evidence is changed, in recorded answers, galleries and log
//! lines.

use super::CleanCluster;
use crate::{
    checker::evidence::{AnonymousRequest, Image},
    journal::{AnswerLine, Call, Exchange, Item, RequestLine, now},
};

/// Returns a call that no client made.
fn invented_call(clean: &CleanCluster, user: &str, call: Call, items: Vec<Item>, answer: AnswerLine) -> Exchange {
    // Above the number of every recorded call.
    let op = clean.base.record.ops.len() as u64 + 1_000_000;
    let request = RequestLine { op, t0: now(), client: 0, user: user.to_owned(), call, server: None, repeats: None, items };
    Exchange { request, answer: Some(AnswerLine { op, t1: now(), ..answer }) }
}

/// Returns an image as an answer shows it.
fn shown(id: &str) -> Item {
    Item { id: Some(id.to_owned()), status: Some(200), state: Some("ready".to_owned()), ..Item::default() }
}

/// Returns a successful answer with these items.
fn page(items: Vec<Item>) -> AnswerLine {
    AnswerLine { status: Some(200), items, ..AnswerLine::default() }
}

/// An answer of a call that failed.
struct FailedAnswer {
    /// End of the description "a call was answered …".
    case: &'static str,
    status: u16,
    code: Option<&'static str>,
    body: &'static str,
    /// Whether the client repeated the call and succeeded.
    is_repeated: bool,
}

/// Failed answers; each violates I13.
const FAILED_ANSWERS: [FailedAnswer; 4] = [
    FailedAnswer {
        case: "with internals",
        status: 503,
        code: Some("unavailable"),
        body: "{\"detail\":\"mongodb://10.0.0.1\"}",
        is_repeated: true,
    },
    FailedAnswer { case: "500", status: 500, code: Some("internal"), body: "{}", is_repeated: true },
    FailedAnswer { case: "503 without a code", status: 503, code: None, body: "<html>", is_repeated: true },
    FailedAnswer { case: "504 and not repeated", status: 504, code: Some("timeout"), body: "{}", is_repeated: false },
];

/// Plants violations in the recorded answers, in a gallery and in the log.
pub fn plant(clean: &CleanCluster) {
    let plants = Plants::of(clean);
    plants.plant_deleted_image();
    plants.plant_other_bytes();
    plants.plant_images_with_one_idempotency_key();
    plants.plant_accounts_with_one_email();
    plants.plant_access_by_others();
    plants.plant_state_and_usage();
    plants.plant_galleries();
    plants.plant_log_lines();
    plants.plant_failed_calls();
}

/// The clean cluster, and the image on whose owner's calls the violations are planted.
struct Plants<'a> {
    clean: &'a CleanCluster,
    image: Image,
    owner: String,
}

impl<'a> Plants<'a> {
    fn of(clean: &'a CleanCluster) -> Self {
        let image = clean.acknowledged_image();
        let owner = clean.timelines.images[image.id()].owners.first().unwrap().clone();
        Self { clean, image, owner }
    }

    /// Returns a call of the owner that no client made.
    fn invented_call(&self, call: Call, answer: AnswerLine) -> Exchange {
        invented_call(self.clean, &self.owner, call, vec![], answer)
    }

    /// I5: an answer contains a deleted image.
    fn plant_deleted_image(&self) {
        let deleted = self.clean.deleted_image();
        let owner = self.clean.timelines.images[deleted.id()].owners.first().unwrap();
        self.clean.assert_reports_change("a deleted image is shown", &[5], |evidence| {
            let answer = page(vec![shown(deleted.id())]);
            evidence.record.ops.push(invented_call(self.clean, owner, Call::Image, vec![], answer));
        });
    }

    fn plant_other_bytes(&self) {
        self.clean.assert_reports_change("other bytes were fetched", &[6], |evidence| {
            for digest in ["one", "another"] {
                let fetched = Item { sha256: Some(digest.to_owned()), ..shown(self.clean.image_confirmed_by_sweeper().id()) };
                evidence.record.ops.push(self.invented_call(Call::Get, page(vec![fetched])));
            }
        });

        self.clean.assert_reports_change("a version hides another", &[6], |evidence| {
            let mut hidden = evidence.object(self.image.key()).unwrap().clone();
            hidden.is_latest = false;
            evidence.objects.push(hidden);
        });
    }

    fn plant_images_with_one_idempotency_key(&self) {
        let another = self.clean.base.ready().find(|other| {
            let timeline = self.clean.timelines.images.get(other.id());
            other.id() != self.image.id()
                && timeline.is_some_and(|timeline| timeline.owners.contains(&self.owner) && timeline.delete_requested.is_none())
        });
        let another = another.expect("the load left two images of one user").id().to_owned();
        self.clean.assert_reports_change("one idempotency key was answered with two images", &[4], |evidence| {
            for id in [self.image.id(), &another] {
                let item = Item { idem_key: Some("key".to_owned()), ..Item::default() };
                let call = invented_call(self.clean, &self.owner, Call::Issue, vec![item], page(vec![shown(id)]));
                evidence.record.ops.push(call);
            }
        });
    }

    fn plant_accounts_with_one_email(&self) {
        self.clean.assert_reports_change("one account was created twice, without events", &[4, 19], |evidence| {
            for number in 0..2 {
                let members = [("userId".to_owned(), uuid::Uuid::new_v4().to_string())].into();
                let created = AnswerLine { status: Some(201), members, ..AnswerLine::default() };
                let mut call = invented_call(self.clean, "nobody@example.com", Call::Signup, vec![], created);
                call.request.op += number;
                evidence.record.ops.push(call);
            }
        });
    }

    fn plant_access_by_others(&self) {
        let case = "another user's image is answered differently from an unknown one";
        self.clean.assert_reports_change(case, &[7], |evidence| {
            let not_found = |code: &str| Item { status: Some(404), code: Some(code.to_owned()), ..Item::default() };
            let answer = page(vec![not_found("not_found"), not_found("not_yours")]);
            evidence.record.ops.push(self.invented_call(Call::Probe, answer));
        });

        self.clean.assert_reports_change("an image is shown to another user", &[7], |evidence| {
            let stranger = self.clean.timelines.accounts.keys().find(|email| **email != self.owner).unwrap();
            let answer = page(vec![shown(self.image.id())]);
            evidence.record.ops.push(invented_call(self.clean, stranger, Call::Image, vec![], answer));
        });

        self.clean.assert_reports_change("an anonymous client reads", &[14], |evidence| {
            evidence.anonymous.get_or_insert_default().push(AnonymousRequest { request: "GET".to_owned(), status: 200 });
        });
    }

    fn plant_state_and_usage(&self) {
        self.clean.assert_reports_change("a ready image is pending again", &[8], |evidence| {
            let pending = Item { state: Some("pending".to_owned()), ..shown(self.image.id()) };
            evidence.record.ops.push(self.invented_call(Call::Renew, page(vec![pending])));
        });

        self.clean.assert_reports_change("usage exceeds the quota", &[9], |evidence| {
            let members = [("bytes", "2"), ("quotaBytes", "1")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let answer = AnswerLine { status: Some(200), members, ..AnswerLine::default() };
            evidence.record.ops.push(self.invented_call(Call::Me, answer));
        });
    }

    fn plant_galleries(&self) {
        let mut galleries = self.clean.base.galleries.iter();
        let (user, gallery) = galleries.find(|(_, shown)| shown.as_ref().is_ok_and(|shown| shown.len() > 1)).unwrap();
        let gallery = gallery.clone().unwrap();
        let (mut swapped, mut short, mut double) = (gallery.clone(), gallery.clone(), gallery.clone());
        swapped.swap(0, 1);
        short.pop();
        double.push(gallery[0].clone());
        for (case, seen) in [
            ("another order", Ok(swapped)),
            ("one image too few", Ok(short)),
            ("one image twice", Ok(double)),
            ("no images", Err("500".to_owned())),
        ] {
            self.clean.assert_reports_change(&format!("a gallery shows {case}"), &[10], |evidence| {
                evidence.galleries.insert(user.clone(), seen);
            });
        }
    }

    fn plant_log_lines(&self) {
        for line in ["password valet-canary word", "GET /b/k?X-Amz-Signature=00", "hash $argon2id$v=19$"] {
            self.clean.assert_reports_change(&format!("the log contains: {line}"), &[11], |evidence| {
                evidence.log.push_str(&format!("\n{line}\n"))
            });
        }
    }

    fn plant_failed_calls(&self) {
        for FailedAnswer { case, status, code, body, is_repeated } in FAILED_ANSWERS {
            self.clean.assert_reports_change(&format!("a call was answered {case}"), &[13], |evidence| {
                let (status, code, body) = (Some(status), code.map(str::to_owned), Some(body.to_owned()));
                let failed = self.invented_call(Call::Me, AnswerLine { status, code, body, ..AnswerLine::default() });
                let op = failed.request.op;
                evidence.record.ops.push(failed);
                if is_repeated {
                    let mut repeated = self.invented_call(Call::Me, page(vec![]));
                    (repeated.request.op, repeated.request.repeats) = (op + 1, Some(op));
                    evidence.record.ops.push(repeated);
                }
            });
        }

        self.clean.assert_reports_change("a call was never answered", &[13], |evidence| {
            let lost = AnswerLine { lost: Some("reset".to_owned()), ..AnswerLine::default() };
            evidence.record.ops.push(self.invented_call(Call::Me, lost));
        });
    }
}
