//! Combines the journal's calls into a timeline for each image, account and session, without judging it.

use std::collections::{BTreeMap, BTreeSet};

use crate::journal::{AnswerLine, Call, Exchange, Item, Record, RequestLine};

/// Time from request to answer in milliseconds, with the number of the call.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub op: u64,
    pub t0: i64,
    pub t1: i64,
}

/// Timeline of one image.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    /// Emails of the accounts whose answers contained the image as their own.
    pub owners: BTreeSet<String>,
    /// Digest, size and type of the declaration, if the call that opened the upload was answered.
    pub declared: Option<(String, u64, String)>,
    /// Confirms that were answered 200.
    pub confirmed: Vec<Span>,
    /// Calls for the image that were answered 2xx.
    pub shown: Vec<(Span, Call)>,
    pub shown_ready: Vec<Span>,
    pub shown_pending: Vec<Span>,
    /// Answers that reported the upload as rejected or expired, with the problem codes.
    pub ended: Vec<(Span, String)>,
    /// Time of the first delete request, answered or not.
    pub delete_requested: Option<i64>,
    /// First delete that was answered 2xx.
    pub deleted: Option<Span>,
    /// Numbers of the calls that fetched bytes, and the digests of the bytes.
    pub fetched: Vec<(u64, String)>,
}

/// Timeline of one account, by its email.
#[derive(Debug, Clone, Default)]
pub struct AccountTimeline {
    /// Ids of the user in answers to the account.
    pub ids: BTreeSet<String>,
    /// Numbers of the sign-ups that were answered 2xx.
    pub signups: Vec<u64>,
    /// Time of the first request to delete the account, answered or not.
    pub deletion_requested: Option<i64>,
    /// Deletion that was answered 2xx.
    pub deleted: Option<Span>,
}

/// An upload that was opened with an idempotency key.
#[derive(Debug, Clone)]
pub struct KeyedUpload {
    pub span: Span,
    pub id: String,
    pub sha256: Option<String>,
}

/// All timelines of a journal.
#[derive(Debug, Clone, Default)]
pub struct Timelines {
    pub images: BTreeMap<String, Timeline>,
    pub accounts: BTreeMap<String, AccountTimeline>,
    /// Uploads by account and idempotency key.
    pub keyed: BTreeMap<(String, String), Vec<KeyedUpload>>,
    /// Sessions that have certainly ended.
    pub ended_sessions: BTreeSet<String>,
}

impl Timelines {
    /// Reads all requests and answers of a journal.
    pub fn of(record: &Record) -> Self {
        let mut timelines = Self::default();
        for Exchange { request, answer } in &record.ops {
            timelines.add_request(request);
            if let Some(answer) = answer {
                timelines.add_answer(request, answer);
            }
        }
        timelines
    }

    /// Returns whether the owner may have deleted an image, by a request for it or with the account.
    pub fn may_be_deleted(&self, id: &str) -> bool {
        let Some(timeline) = self.images.get(id) else { return false };
        let may_be_closed = |email: &String| self.accounts.get(email).is_some_and(|life| life.deletion_requested.is_some());
        timeline.delete_requested.is_some() || timeline.owners.iter().any(may_be_closed)
    }

    /// Adds the deletions of a request: they may happen even if no answer arrives.
    fn add_request(&mut self, request: &RequestLine) {
        match request.call {
            Call::Delete => {
                for id in request.items.iter().filter_map(|item| item.id.as_ref()) {
                    self.images.entry(id.clone()).or_default().delete_requested.get_or_insert(request.t0);
                }
            }
            Call::DeleteAccount => {
                self.accounts.entry(request.user.clone()).or_default().deletion_requested.get_or_insert(request.t0);
            }
            _ => {}
        }
    }

    /// Adds the effects of an answer.
    fn add_answer(&mut self, request: &RequestLine, answer: &AnswerLine) {
        let span = Span { op: request.op, t0: request.t0, t1: answer.t1 };
        let ok = answer.status.is_some_and(|status| (200..300).contains(&status));
        let life = self.accounts.entry(request.user.clone()).or_default();
        life.ids.extend(answer.members.get("userId").cloned());
        match request.call {
            Call::Signup if ok => life.signups.push(request.op),
            Call::DeleteAccount if ok => life.deleted = Some(span),
            Call::Logout if ok => self.ended_sessions.extend(request.items.iter().filter_map(|item| item.id.clone())),
            _ => {}
        }
        if matches!(request.call, Call::Probe | Call::Put) {
            return;
        }
        for (at, item) in answer.items.iter().enumerate() {
            self.add_item(request, span, item, request.items.get(at));
        }
    }

    /// Adds the part of an answer that concerns one image; `requested` is the same image's part of the
    /// request.
    fn add_item(&mut self, request: &RequestLine, span: Span, item: &Item, requested: Option<&Item>) {
        let Some(id) = &item.id else { return };
        let timeline = self.images.entry(id.clone()).or_default();
        // Items of a gallery page have no status.
        let ok = item.status.is_none_or(|status| (200..300).contains(&status));
        match (request.call, &item.code) {
            // Items of a logout are sessions.
            (Call::Logout, _) => {
                self.images.remove(id);
                return;
            }
            (Call::Get, _) => {
                timeline.fetched.extend(item.sha256.clone().map(|digest| (span.op, digest)));
                return;
            }
            (Call::Delete, _) if ok => {
                timeline.deleted.get_or_insert(span);
                return;
            }
            (call, Some(code)) if ends(call, code) => timeline.ended.push((span, code.clone())),
            _ => {}
        }
        if !ok {
            return;
        }
        timeline.owners.insert(request.user.clone());
        timeline.shown.push((span, request.call));
        match item.state.as_deref() {
            Some("ready") => timeline.shown_ready.push(span),
            Some("pending") => timeline.shown_pending.push(span),
            _ => {}
        }
        if request.call == Call::Confirm && item.status == Some(200) {
            timeline.confirmed.push(span);
        }
        if let (Call::Issue, Some(requested)) = (request.call, requested) {
            if let (Some(sha256), Some(size), Some(content_type)) = (&requested.sha256, requested.size, &requested.content_type) {
                timeline.declared.get_or_insert_with(|| (sha256.clone(), size, content_type.clone()));
            }
            if let Some(key) = &requested.idem_key {
                let keyed = KeyedUpload { span, id: id.clone(), sha256: requested.sha256.clone() };
                self.keyed.entry((request.user.clone(), key.clone())).or_default().push(keyed);
            }
        }
    }
}

/// Returns whether a problem code reports that the upload is over. `upload_expired` of a renewal does not: an object that arrived
/// in time can still be confirmed.
fn ends(call: Call, code: &str) -> bool {
    matches!(code, "object_mismatch" | "content_mismatch") || (call == Call::Confirm && code == "upload_expired")
}
