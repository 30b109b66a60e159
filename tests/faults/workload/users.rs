//! Users of the load and their uploads: shared by all clients of a user.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use super::random::Random;
use crate::files::{fixture, sha256};

/// Beginning of every password, by which the checker recognises a leaked password.
pub const MARKER: &str = "valet-canary";

/// Bytes to upload.
#[derive(Debug)]
pub struct File {
    pub bytes: Vec<u8>,
    pub content_type: &'static str,
    pub sha256: String,
}

impl File {
    /// Returns a unique PNG or JPEG with up to 4,000 bytes after its end, so that users reach their quotas.
    pub fn new(random: &mut Random) -> Self {
        let (name, content_type) = if random.percent(60) { ("plain.png", "image/png") } else { ("plain.jpg", "image/jpeg") };
        let mut bytes = fixture(name);
        Self::salt(&mut bytes, random);
        // Bytes after an image's end are legal.
        bytes.resize(bytes.len() + random.below(4000), 7);
        Self { sha256: sha256(&bytes), bytes, content_type }
    }

    /// Returns HTML that is declared as a PNG.
    pub fn html(random: &mut Random) -> Self {
        let mut bytes = b"<!doctype html><script>alert(1)</script>".to_vec();
        Self::salt(&mut bytes, random);
        Self { sha256: sha256(&bytes), bytes, content_type: "image/png" }
    }

    /// Appends 16 random bytes, so that each file is unique.
    fn salt(bytes: &mut Vec<u8>, random: &mut Random) {
        bytes.extend(random.next().to_le_bytes());
        bytes.extend(random.next().to_le_bytes());
    }

    /// Returns different bytes of the same length.
    pub fn other_bytes(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if let Some(last) = bytes.last_mut() {
            *last ^= 0xff;
        }
        bytes
    }
}

/// An image or open upload as known to its owner's clients.
#[derive(Debug, Clone)]
pub struct KnownImage {
    pub id: String,
    pub file: Arc<File>,
    pub ready: bool,
}

/// Way in which the user of an account signs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignIn {
    Password,
    /// The app's backend gets a token with its service key.
    Backend,
}

/// An account and its images.
pub struct Account {
    /// Email of a local account; subject of a user of the app.
    pub email: String,
    sign_in: SignIn,
    /// Images and open uploads.
    pub known: Mutex<Vec<KnownImage>>,
    /// Set once the account is signed up: one client signs up for all, because hashing is slow.
    pub signed_up: tokio::sync::OnceCell<()>,
    /// Whether a client of the owner has begun to delete the account.
    pub leaving: AtomicBool,
}

impl Account {
    fn new(email: String, sign_in: SignIn) -> Arc<Self> {
        Arc::new(Self {
            email,
            sign_in,
            known: Mutex::default(),
            signed_up: tokio::sync::OnceCell::new(),
            leaving: AtomicBool::new(false),
        })
    }

    /// Returns whether the account belongs to the app: it has no password, and the app's backend gets its tokens.
    pub fn is_app_user(&self) -> bool {
        self.sign_in == SignIn::Backend
    }

    /// Returns the password, derived from the email.
    pub fn password(&self) -> String {
        password_of(&self.email)
    }

    /// Adds an open upload, unless the account has it already.
    pub fn remember_open(&self, id: &str, file: &Arc<File>) {
        self.remember(KnownImage { id: id.to_owned(), file: file.clone(), ready: false });
    }

    /// Adds a ready image, or marks an open upload as ready.
    pub fn remember_ready(&self, id: &str, file: &Arc<File>) {
        self.remember(KnownImage { id: id.to_owned(), file: file.clone(), ready: true });
    }

    /// Adds an image or open upload, or marks the known one as ready if `image` is.
    fn remember(&self, image: KnownImage) {
        let mut known = self.known.lock().unwrap();
        match known.iter_mut().find(|known| known.id == image.id) {
            Some(known) => known.ready |= image.ready,
            None => known.push(image),
        }
    }

    /// Removes an image that does not exist any more.
    pub fn forget(&self, id: &str) {
        self.known.lock().unwrap().retain(|known| known.id != id);
    }

    /// Returns at most `most` successive images or uploads, from a random one on, that meet the condition.
    pub fn pick(&self, random: &mut Random, most: usize, condition: impl Fn(&KnownImage) -> bool) -> Vec<KnownImage> {
        let known: Vec<_> = self.known.lock().unwrap().iter().filter(|known| condition(known)).cloned().collect();
        let start = random.below(known.len());
        known.into_iter().skip(start).take(most).collect()
    }
}

/// Returns the password of an account, derived from its email, so that the checker can search for it.
pub fn password_of(email: &str) -> String {
    format!("{MARKER} {}", &sha256(email.as_bytes())[..16])
}

/// A person. After the deletion of an account, the person has a new one.
pub struct Person {
    number: usize,
    seed: u64,
    /// Generation of the current account, from 0, and the account.
    account: Mutex<(usize, Arc<Account>)>,
}

impl Person {
    pub fn new(number: usize, seed: u64) -> Self {
        let sign_in = if number % 3 == 2 { SignIn::Backend } else { SignIn::Password };
        Self { number, seed, account: Mutex::new((0, Account::new(Self::email(number, seed, 0), sign_in))) }
    }

    /// Returns the email of a person's account: each generation has another one.
    fn email(number: usize, seed: u64, generation: usize) -> String {
        format!("u{number}.{generation}.{seed}@example.com")
    }

    pub fn account(&self) -> Arc<Account> {
        self.account.lock().unwrap().1.clone()
    }

    /// Replaces the deleted account `old`, unless another client has replaced it.
    pub fn replace_account(&self, old: &Account) {
        let mut account = self.account.lock().unwrap();
        if account.1.email == old.email {
            let generation = account.0 + 1;
            *account = (generation, Account::new(Self::email(self.number, self.seed, generation), old.sign_in));
        }
    }

    /// Claims the deletion of the account for the calling client. Returns `false` if another client has claimed it.
    pub fn claim_deletion(account: &Account) -> bool {
        !account.leaving.swap(true, Ordering::Relaxed)
    }
}
