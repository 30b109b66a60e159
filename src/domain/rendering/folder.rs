//! Temporary folders of conversions, which contain a user's image. A process locks its folders: the kernel releases the locks of a
//! process that was killed, and the next worker removes these folders.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

/// Beginning of the folders' names.
const PREFIX: &str = "valet-heif-";

/// Number of folders, at most, that are created until one is locked.
const MAX_ATTEMPTS: u32 = 10;

/// A temporary folder of this process. It is removed, with its contents, when it is dropped.
pub(super) struct Folder {
    path: PathBuf,
    /// The locked folder. Children do not inherit it.
    _lock: File,
}

impl Folder {
    /// Creates a folder that only the worker's user can read.
    pub(super) fn create() -> io::Result<Self> {
        Self::create_in(&std::env::temp_dir())
    }

    fn create_in(parent: &Path) -> io::Result<Self> {
        for _ in 0..MAX_ATTEMPTS {
            let path = parent.join(format!("{PREFIX}{}", Uuid::new_v4().simple()));
            let mut builder = DirBuilder::new();
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(&path)?;
            // A worker that starts may remove the folder before it is locked.
            if let Some(lock) = lock(&path)? {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Returns the folder's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Locks a new folder; `None` if another process removes it. On a file system without locks, the folder is used without one: no
/// process locks it there to remove it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let folder = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match folder.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(None),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(path.try_exists()?.then_some(folder)),
    }
}

/// Removes the folders that killed processes left, and returns their number. Folders of running processes are locked, and stay.
pub(super) fn remove_leftovers() -> io::Result<usize> {
    remove_leftovers_in(&std::env::temp_dir())
}

fn remove_leftovers_in(parent: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // A folder that another worker removes at the same time, or that belongs to another user, is left out.
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Ok(folder) = File::open(entry.path()) else { continue };
        if folder.try_lock().is_ok() && fs::remove_dir_all(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Folder, PREFIX, Uuid, fs, remove_leftovers_in};

    #[test]
    fn folders_without_a_living_process_are_removed() {
        let parent = std::env::temp_dir().join(format!("valet-test-{}", Uuid::new_v4().simple()));
        let (left, other) = (parent.join(format!("{PREFIX}left")), parent.join("other"));
        for folder in [&left, &other] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("image.heic"), "a photograph").unwrap();
        }
        let used = Folder::create_in(&parent).unwrap();
        fs::write(used.path().join("image.heic"), "a photograph").unwrap();

        assert_eq!(remove_leftovers_in(&parent).unwrap(), 1);
        assert!(!left.exists(), "no process has locked it");
        assert!(used.path().join("image.heic").exists() && other.join("image.heic").exists());
        assert_eq!(remove_leftovers_in(&parent).unwrap(), 0);

        let path = used.path().to_owned();
        drop(used);
        assert!(!path.exists());
        fs::remove_dir_all(parent).unwrap();
    }
}
