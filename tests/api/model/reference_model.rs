//! The reference model: the states and rules of docs/concepts.md, without a database, a bucket or a clock. Times are seconds from
//! the present, in which all calls are made; only the sweeper runs at other times.

mod image;

pub use self::image::{Image, Object, State};
use super::{Declared, MAX_PENDING, QUOTA, Which, Who, live_server::is_image};

/// Status, and code if it is a problem.
pub type Outcome = (u16, &'static str);

pub const NOT_FOUND: Outcome = (404, "not_found");
const URL_TTL: i64 = 3600;
const GRACE: i64 = 900;
const TTL: i64 = 86_400;
const MULTIPART_TTL: i64 = 7 * 86_400;
/// Seconds for which a completion in progress may write the key.
const COMPLETING: i64 = 40;

/// Result of an issuing call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Issued {
    Opened,
    Known(Which),
    Refused(Outcome),
}

#[derive(Debug)]
pub struct Model {
    pub images: Vec<Image>,
    /// Size of each file in the pool, and the file that has its digest.
    files: Vec<(u64, usize)>,
    moments: u64,
}

impl Model {
    pub fn new(files: Vec<(u64, usize)>) -> Self {
        Self { images: Vec::new(), files, moments: 0 }
    }

    /// Returns the index of an image that exists in the model, of any owner.
    fn find(&self, which: Which) -> Option<usize> {
        (which < self.images.len()).then_some(which)
    }

    /// Returns the index of an image of this user.
    fn owned(&self, who: Who, which: Which) -> Option<usize> {
        self.find(which).filter(|at| self.images[*at].who == who)
    }

    /// Returns bytes, ready images and open uploads of a user.
    pub fn usage(&self, who: Who) -> (u64, u64, u64) {
        let in_state = |state: State| self.images.iter().filter(move |image| image.who == who && image.state == state);
        let with_kept_bytes = self.images.iter().filter(|image| image.who == who && image.kept);
        let bytes = in_state(State::Ready).chain(in_state(State::Pending)).chain(with_kept_bytes).map(|image| image.size).sum();
        (bytes, in_state(State::Ready).count() as u64, in_state(State::Pending).count() as u64)
    }

    /// Returns the result if the key or the bytes belong to an earlier upload of the user.
    fn known(&self, who: Who, declared: Declared, key: Option<u8>) -> Option<Issued> {
        let fingerprint = (false, declared);
        let mine = || self.images.iter().enumerate().filter(|(_, image)| image.who == who);
        if let Some((at, image)) = mine().find(|(_, image)| key.is_some() && image.key.map(|(name, _)| name) == key) {
            let is_repeat = image.key.is_some_and(|(_, request)| request == fingerprint);
            return Some(if is_repeat { Issued::Known(at) } else { Issued::Refused((422, "idempotency_key_reused")) });
        }
        let bytes = |file: usize| self.files[file];
        let same = |image: &Image| !image.in_parts && image.is_live() && bytes(image.declared.file) == bytes(declared.file);
        mine().find(|(_, image)| same(image)).map(|(at, _)| Issued::Known(at))
    }

    /// Returns the refusal if an upload of this size exceeds a limit of the user.
    fn refusal(&self, who: Who, size: u64) -> Option<Issued> {
        let (bytes, _, pending) = self.usage(who);
        if size > QUOTA - bytes {
            return Some(Issued::Refused((409, "quota_exceeded")));
        }
        (pending >= u64::from(MAX_PENDING)).then_some(Issued::Refused((409, "too_many_pending")))
    }

    /// Adds an open upload.
    fn open(&mut self, who: Who, declared: Declared, key: Option<u8>, in_parts: bool) {
        let (urls_die, size) = (if in_parts { 0 } else { URL_TTL }, self.files[declared.file].0);
        self.images.push(Image {
            id: String::new(),
            who,
            declared,
            size,
            caption: declared.caption.then(|| "words".to_owned()),
            in_parts,
            state: State::Pending,
            object: Object::Nothing,
            part: false,
            place: 0,
            key: key.map(|key| (key, (in_parts, declared))),
            urls_die,
            due: Some(urls_die + GRACE),
            was: State::Pending,
            kept: false,
        });
    }

    /// Returns one result for each item: known items are found first, then the others are opened in order while they fit.
    pub fn upload(&mut self, who: Who, items: &[(Declared, Option<u8>)]) -> Vec<Issued> {
        let mut answers: Vec<_> = items.iter().map(|(declared, key)| self.known(who, *declared, *key)).collect();
        for ((declared, key), answer) in items.iter().zip(&answers) {
            if let Some(Issued::Known(at)) = answer {
                self.redeclare(*at, *declared, *key);
            }
        }
        let mut refused = Vec::new();
        for (at, (declared, key)) in items.iter().enumerate().filter(|(at, _)| answers[*at].is_none()).collect::<Vec<_>>() {
            if self.refusal(who, self.files[declared.file].0).is_some() {
                refused.push((at, declared));
            } else {
                self.open(who, *declared, *key, false);
                answers[at] = Some(Issued::Opened);
            }
        }
        for (at, declared) in refused {
            answers[at] = self.refusal(who, self.files[declared.file].0);
        }
        answers.into_iter().map(|answer| answer.expect("items that fit were opened")).collect()
    }

    /// A later declaration of pending bytes replaces the earlier one; a repeated request changes nothing.
    fn redeclare(&mut self, at: usize, declared: Declared, key: Option<u8>) {
        let image = &mut self.images[at];
        let is_repeat = key.is_some() && image.key == key.map(|key| (key, (false, declared)));
        if image.state == State::Pending && !is_repeat {
            image.declared = declared;
            image.caption = declared.caption.then(|| "words".to_owned());
        }
    }

    /// Opens a multipart upload.
    pub fn open_parts(&mut self, who: Who, declared: Declared, key: Option<u8>) -> Issued {
        let mine = self.images.iter().enumerate().filter(|(_, image)| image.who == who && key.is_some());
        if let Some((at, image)) = mine.into_iter().find(|(_, image)| image.key.map(|(name, _)| name) == key) {
            let is_repeat = image.key.is_some_and(|(_, request)| request == (true, declared));
            return if is_repeat { Issued::Known(at) } else { Issued::Refused((422, "idempotency_key_reused")) };
        }
        if let Some(refused) = self.refusal(who, self.files[declared.file].0) {
            return refused;
        }
        self.open(who, declared, key, true);
        Issued::Opened
    }

    /// Records that a URL for the key was issued.
    fn record_url(&mut self, at: usize) {
        let image = &mut self.images[at];
        image.urls_die = image.urls_die.max(URL_TTL);
        image.due = image.due.max(Some(URL_TTL + GRACE));
    }

    /// Renews an upload.
    pub fn renew(&mut self, who: Who, which: Which) -> Outcome {
        let Some(at) = self.owned(who, which) else { return NOT_FOUND };
        match self.images[at].outcome() {
            State::Ready => (200, "ready"),
            State::Pending if self.images[at].in_parts => (409, "not_single_part"),
            State::Pending => {
                self.record_url(at);
                (200, "pending")
            }
            State::Rejected(why) => (422, why),
            State::Expired => (410, "upload_expired"),
            State::Deleting | State::Gone => NOT_FOUND,
        }
    }

    /// Returns the answer to a PUT; `None` if it must not be sent because the sweeper has run at a time after its URL's expiry.
    pub fn put(&mut self, which: Which) -> Option<Outcome> {
        let at = self.find(which)?;
        let image = &mut self.images[at];
        if image.in_parts || image.state == State::Gone {
            return None;
        }
        if image.object != Object::Nothing {
            return Some((412, ""));
        }
        image.object = Object::Declared;
        Some((200, ""))
    }

    /// Returns the image if other bytes may be planted at its key; a ready image's bytes must not change.
    pub fn plant(&mut self, which: Which) -> Option<&Image> {
        let at = self.find(which)?;
        let image = &mut self.images[at];
        if image.state != State::Pending || image.in_parts {
            return None;
        }
        image.object = Object::Other;
        Some(image)
    }

    /// Decides a pending image by the object at its key; `now` is the sweeper's time or zero.
    fn resolve(&mut self, at: usize, now: i64, moment: u64) -> Outcome {
        let image = &mut self.images[at];
        if image.in_parts && image.part && image.object == Object::Nothing {
            image.object = Object::Declared;
            image.urls_die = image.urls_die.max(now + COMPLETING);
        }
        match image.object {
            Object::Nothing if image.in_parts => return (409, "parts_missing"),
            Object::Nothing => return (409, "object_missing"),
            Object::Declared if is_image(image.declared) => {
                (image.state, image.due, image.place) = (State::Ready, None, moment);
                return (200, "");
            }
            Object::Declared => image.end(State::Rejected("content_mismatch"), now),
            Object::Other => image.end(State::Rejected("object_mismatch"), now),
        }
        let State::Rejected(why) = image.state else { unreachable!() };
        (422, why)
    }

    /// Confirms uploads at the same moment.
    pub fn confirm(&mut self, who: Who, ids: &[Which]) -> Vec<Outcome> {
        self.moments += 1;
        let answer = |model: &mut Self, which: Which| {
            let Some(at) = model.owned(who, which) else { return NOT_FOUND };
            match model.images[at].outcome() {
                State::Pending => model.resolve(at, 0, model.moments),
                State::Ready => (200, ""),
                State::Rejected(why) => (422, why),
                State::Expired => (410, "upload_expired"),
                State::Deleting | State::Gone => NOT_FOUND,
            }
        };
        ids.iter().map(|which| answer(self, *which)).collect()
    }

    /// Deletes an image or open upload.
    pub fn delete(&mut self, who: Who, which: Which) -> Outcome {
        let Some(at) = self.owned(who, which) else { return NOT_FOUND };
        let image = &mut self.images[at];
        match image.state {
            State::Gone => return NOT_FOUND,
            State::Deleting | State::Rejected(_) | State::Expired => {}
            State::Pending | State::Ready => {
                image.end(State::Deleting, 0);
                // The object is removed at once, and again when no URL can store it any more.
                (image.object, image.part, image.due) = (Object::Nothing, false, Some(image.quiet_from()));
            }
        }
        (204, "")
    }

    /// Reads an image.
    pub fn get(&self, who: Who, which: Which) -> Outcome {
        let is_ready = self.owned(who, which).is_some_and(|at| self.images[at].state == State::Ready);
        if is_ready { (200, "") } else { NOT_FOUND }
    }

    /// Sets or clears a caption.
    pub fn caption(&mut self, who: Who, which: Which, caption: Option<&str>) -> Outcome {
        let outcome = self.get(who, which);
        if outcome.0 == 200 {
            self.images[which].caption = caption.map(str::to_owned);
        }
        outcome
    }

    /// Returns the index of a multipart upload of this user, or the refusal.
    fn parts(&self, who: Who, which: Which) -> Result<usize, Outcome> {
        let at = self.owned(who, which).ok_or(NOT_FOUND)?;
        let image = &self.images[at];
        match image.outcome() {
            State::Pending | State::Ready if !image.in_parts => Err((409, "not_multipart")),
            State::Pending | State::Ready => Ok(at),
            State::Rejected(why) => Err((422, why)),
            State::Expired => Err((410, "upload_expired")),
            State::Deleting | State::Gone => Err(NOT_FOUND),
        }
    }

    /// Signs the URL of a part.
    pub fn sign_part(&mut self, who: Who, which: Which) -> Outcome {
        match self.parts(who, which) {
            Err(outcome) => outcome,
            Ok(at) if self.images[at].state == State::Ready => (409, "upload_complete"),
            Ok(at) => {
                self.record_url(at);
                (200, "")
            }
        }
    }

    /// Returns the owner if the part may be sent, that is, if the upload is open in S3.
    pub fn put_part(&mut self, which: Which) -> Option<Who> {
        let at = self.find(which)?;
        let image = &mut self.images[at];
        if !image.in_parts || image.state != State::Pending {
            return None;
        }
        image.part = true;
        // Requests the part's URL first.
        self.record_url(at);
        Some(self.images[at].who)
    }

    /// Returns the number of parts that have arrived, or the refusal.
    pub fn list_parts(&self, who: Who, which: Which) -> Result<usize, Outcome> {
        self.parts(who, which).map(|at| usize::from(self.images[at].part))
    }

    /// Does what the sweeper does at this time.
    pub fn sweep(&mut self, now: i64) {
        self.moments += 1;
        for at in 0..self.images.len() {
            if self.images[at].due.is_none_or(|due| due > now) {
                continue;
            }
            if self.images[at].state == State::Pending {
                if self.resolve(at, now, self.moments).0 == 409 {
                    let image = &mut self.images[at];
                    let ends = if image.in_parts { MULTIPART_TTL } else { TTL }.max(image.quiet_from());
                    if now < ends {
                        image.due = Some(ends);
                    } else {
                        image.end(State::Expired, now);
                    }
                }
                continue;
            }
            let image = &mut self.images[at];
            (image.object, image.part) = (Object::Nothing, false);
            let ends = image.quiet_from();
            if now < ends {
                image.due = Some(ends);
            } else {
                (image.was, image.state, image.due, image.kept) = (image.state, State::Gone, None, false);
            }
        }
    }
}
