//! The reference model: the states and rules of docs/concepts.md, without a database, a bucket or a clock. Times are seconds from
//! the present, in which all calls are made; only the sweeper runs at other times.

mod image;

pub use self::image::{Image, Object, State};
use super::{Declared, ImageIndex, MAX_PENDING, QUOTA, UserIndex, live_server::is_image};

/// HTTP status, and problem code, or the state of a renewed upload, or an empty text.
pub type Outcome = (u16, &'static str);

/// Outcome for an unknown image, or another user's.
pub const NOT_FOUND: Outcome = (404, "not_found");
/// Lifetime of a presigned URL, in seconds.
const URL_TTL: i64 = 3600;
/// Seconds after a URL's expiry in which a request that has begun may still write.
const GRACE: i64 = 900;
/// Lifetime of an open upload, in seconds.
const TTL: i64 = 86_400;
/// Lifetime of an open multipart upload, in seconds.
const MULTIPART_TTL: i64 = 7 * 86_400;
/// Seconds for which a completion in progress may write the key.
const COMPLETING: i64 = 40;

/// Result of the opening of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    Opened,
    Known(ImageIndex),
    Rejected(Outcome),
}

/// Images of both users.
#[derive(Debug)]
pub struct Model {
    /// All images, in the order of opening.
    pub images: Vec<Image>,
    /// Size of each file in the pool, and the file that has its digest.
    files: Vec<(u64, usize)>,
    /// Number of moments so far at which images can become ready.
    moments: u64,
}

impl Model {
    pub fn new(files: Vec<(u64, usize)>) -> Self {
        Self { images: Vec::new(), files, moments: 0 }
    }

    /// Returns the index of an image that exists in the model, of any owner.
    fn find(&self, index: ImageIndex) -> Option<usize> {
        (index < self.images.len()).then_some(index)
    }

    /// Returns the index of an image of this user.
    fn owned(&self, user: UserIndex, index: ImageIndex) -> Option<usize> {
        self.find(index).filter(|at| self.images[*at].user == user)
    }

    /// Returns bytes, ready images and open uploads of a user.
    pub fn usage(&self, user: UserIndex) -> (u64, u64, u64) {
        let in_state = |state: State| self.images.iter().filter(move |image| image.user == user && image.state == state);
        let other_counted = self.images.iter().filter(|image| image.user == user && image.is_counted);
        let bytes = in_state(State::Ready).chain(in_state(State::Pending)).chain(other_counted).map(|image| image.size).sum();
        (bytes, in_state(State::Ready).count() as u64, in_state(State::Pending).count() as u64)
    }

    /// Returns the result if the idempotency key or the bytes belong to an earlier upload of the user.
    fn known(&self, user: UserIndex, declared: Declared, key: Option<u8>) -> Option<Opening> {
        let fingerprint = (false, declared);
        let own = || self.images.iter().enumerate().filter(|(_, image)| image.user == user);
        if let Some((at, image)) = own().find(|(_, image)| key.is_some() && image.key.map(|(name, _)| name) == key) {
            let is_repeat = image.key.is_some_and(|(_, request)| request == fingerprint);
            return Some(if is_repeat { Opening::Known(at) } else { Opening::Rejected((422, "idempotency_key_reused")) });
        }
        let bytes = |file: usize| self.files[file];
        let same = |image: &Image| !image.in_parts && image.is_live() && bytes(image.declared.file) == bytes(declared.file);
        own().find(|(_, image)| same(image)).map(|(at, _)| Opening::Known(at))
    }

    /// Returns the rejection if an upload of this size exceeds a limit of the user.
    fn exceeded_limit(&self, user: UserIndex, size: u64) -> Option<Opening> {
        let (bytes, _, pending) = self.usage(user);
        if size > QUOTA - bytes {
            return Some(Opening::Rejected((409, "quota_exceeded")));
        }
        (pending >= u64::from(MAX_PENDING)).then_some(Opening::Rejected((409, "too_many_pending")))
    }

    /// Adds an open upload.
    fn open(&mut self, user: UserIndex, declared: Declared, key: Option<u8>, in_parts: bool) {
        let (urls_expire_at, size) = (if in_parts { 0 } else { URL_TTL }, self.files[declared.file].0);
        self.images.push(Image {
            id: String::new(),
            user,
            declared,
            size,
            caption: declared.caption.then(|| "words".to_owned()),
            in_parts,
            state: State::Pending,
            object: Object::Nothing,
            part: false,
            ready_moment: 0,
            key: key.map(|key| (key, (in_parts, declared))),
            urls_expire_at,
            due: Some(urls_expire_at + GRACE),
            state_before_purge: State::Pending,
            is_counted: false,
        });
    }

    /// Returns one result for each item: known items are found first, then the others are opened in order while they fit.
    pub fn upload(&mut self, user: UserIndex, items: &[(Declared, Option<u8>)]) -> Vec<Opening> {
        let mut answers: Vec<_> = items.iter().map(|(declared, key)| self.known(user, *declared, *key)).collect();
        for ((declared, key), answer) in items.iter().zip(&answers) {
            if let Some(Opening::Known(at)) = answer {
                self.redeclare(*at, *declared, *key);
            }
        }
        let mut rejected = Vec::new();
        for (at, (declared, key)) in items.iter().enumerate().filter(|(at, _)| answers[*at].is_none()).collect::<Vec<_>>() {
            if self.exceeded_limit(user, self.files[declared.file].0).is_some() {
                rejected.push((at, declared));
            } else {
                self.open(user, *declared, *key, false);
                answers[at] = Some(Opening::Opened);
            }
        }
        for (at, declared) in rejected {
            answers[at] = self.exceeded_limit(user, self.files[declared.file].0);
        }
        answers.into_iter().map(|answer| answer.expect("items that fit were opened")).collect()
    }

    /// Replaces the declaration of a pending upload by a later one; a repeated request changes nothing.
    fn redeclare(&mut self, at: usize, declared: Declared, key: Option<u8>) {
        let image = &mut self.images[at];
        let is_repeat = key.is_some() && image.key == key.map(|key| (key, (false, declared)));
        if image.state == State::Pending && !is_repeat {
            image.declared = declared;
            image.caption = declared.caption.then(|| "words".to_owned());
        }
    }

    /// Opens a multipart upload.
    pub fn open_parts(&mut self, user: UserIndex, declared: Declared, key: Option<u8>) -> Opening {
        let own = self.images.iter().enumerate().filter(|(_, image)| image.user == user && key.is_some());
        if let Some((at, image)) = own.into_iter().find(|(_, image)| image.key.map(|(name, _)| name) == key) {
            let is_repeat = image.key.is_some_and(|(_, request)| request == (true, declared));
            return if is_repeat { Opening::Known(at) } else { Opening::Rejected((422, "idempotency_key_reused")) };
        }
        if let Some(rejected) = self.exceeded_limit(user, self.files[declared.file].0) {
            return rejected;
        }
        self.open(user, declared, key, true);
        Opening::Opened
    }

    /// Records that a URL for the key was issued.
    fn record_url(&mut self, at: usize) {
        let image = &mut self.images[at];
        image.urls_expire_at = image.urls_expire_at.max(URL_TTL);
        image.due = image.due.max(Some(URL_TTL + GRACE));
    }

    /// Renews an upload.
    pub fn renew(&mut self, user: UserIndex, index: ImageIndex) -> Outcome {
        let Some(at) = self.owned(user, index) else { return NOT_FOUND };
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
    pub fn put(&mut self, index: ImageIndex) -> Option<Outcome> {
        let at = self.find(index)?;
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
    pub fn plant(&mut self, index: ImageIndex) -> Option<&Image> {
        let at = self.find(index)?;
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
            image.urls_expire_at = image.urls_expire_at.max(now + COMPLETING);
        }
        match image.object {
            Object::Nothing if image.in_parts => return (409, "parts_missing"),
            Object::Nothing => return (409, "object_missing"),
            Object::Declared if is_image(image.declared) => {
                (image.state, image.due, image.ready_moment) = (State::Ready, None, moment);
                return (200, "");
            }
            Object::Declared => image.end(State::Rejected("content_mismatch"), now),
            Object::Other => image.end(State::Rejected("object_mismatch"), now),
        }
        let State::Rejected(why) = image.state else { unreachable!() };
        (422, why)
    }

    /// Confirms uploads at the same moment.
    pub fn confirm(&mut self, user: UserIndex, indexes: &[ImageIndex]) -> Vec<Outcome> {
        self.moments += 1;
        let answer = |model: &mut Self, index: ImageIndex| {
            let Some(at) = model.owned(user, index) else { return NOT_FOUND };
            match model.images[at].outcome() {
                State::Pending => model.resolve(at, 0, model.moments),
                State::Ready => (200, ""),
                State::Rejected(why) => (422, why),
                State::Expired => (410, "upload_expired"),
                State::Deleting | State::Gone => NOT_FOUND,
            }
        };
        indexes.iter().map(|index| answer(self, *index)).collect()
    }

    /// Deletes an image or open upload.
    pub fn delete(&mut self, user: UserIndex, index: ImageIndex) -> Outcome {
        let Some(at) = self.owned(user, index) else { return NOT_FOUND };
        let image = &mut self.images[at];
        match image.state {
            State::Gone => return NOT_FOUND,
            State::Deleting | State::Rejected(_) | State::Expired => {}
            State::Pending | State::Ready => {
                image.end(State::Deleting, 0);
                // The object is removed at once, and again when no URL can store it any more.
                (image.object, image.part, image.due) = (Object::Nothing, false, Some(image.writes_end_at()));
            }
        }
        (204, "")
    }

    /// Reads an image.
    pub fn get(&self, user: UserIndex, index: ImageIndex) -> Outcome {
        let is_ready = self.owned(user, index).is_some_and(|at| self.images[at].state == State::Ready);
        if is_ready { (200, "") } else { NOT_FOUND }
    }

    /// Sets or clears a caption.
    pub fn caption(&mut self, user: UserIndex, index: ImageIndex, caption: Option<&str>) -> Outcome {
        let outcome = self.get(user, index);
        if outcome.0 == 200 {
            self.images[index].caption = caption.map(str::to_owned);
        }
        outcome
    }

    /// Returns the index of a multipart upload of this user, or the outcome of a rejection.
    fn parts(&self, user: UserIndex, index: ImageIndex) -> Result<usize, Outcome> {
        let at = self.owned(user, index).ok_or(NOT_FOUND)?;
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
    pub fn sign_part(&mut self, user: UserIndex, index: ImageIndex) -> Outcome {
        match self.parts(user, index) {
            Err(outcome) => outcome,
            Ok(at) if self.images[at].state == State::Ready => (409, "upload_complete"),
            Ok(at) => {
                self.record_url(at);
                (200, "")
            }
        }
    }

    /// Returns the owner if the part may be sent, that is, if the upload is open in S3.
    pub fn put_part(&mut self, index: ImageIndex) -> Option<UserIndex> {
        let at = self.find(index)?;
        let image = &mut self.images[at];
        if !image.in_parts || image.state != State::Pending {
            return None;
        }
        image.part = true;
        // The test requests the part's URL first.
        self.record_url(at);
        Some(self.images[at].user)
    }

    /// Returns the number of parts that have arrived, or the outcome of a rejection.
    pub fn list_parts(&self, user: UserIndex, index: ImageIndex) -> Result<usize, Outcome> {
        self.parts(user, index).map(|at| usize::from(self.images[at].part))
    }

    /// Sweeps at this time.
    pub fn sweep(&mut self, now: i64) {
        self.moments += 1;
        for at in 0..self.images.len() {
            if self.images[at].due.is_none_or(|due| due > now) {
                continue;
            }
            if self.images[at].state == State::Pending {
                if self.resolve(at, now, self.moments).0 == 409 {
                    let image = &mut self.images[at];
                    let ends = if image.in_parts { MULTIPART_TTL } else { TTL }.max(image.writes_end_at());
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
            let ends = image.writes_end_at();
            if now < ends {
                image.due = Some(ends);
            } else {
                (image.state_before_purge, image.state, image.due, image.is_counted) = (image.state, State::Gone, None, false);
            }
        }
    }
}
