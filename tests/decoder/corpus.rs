//! Renders all files of folders: a part of `.ci/pixels`, which compares the pictures with Chromium's.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};
use valet::{
    domain::{
        content::{Content, ContentError, ContentInspector, MAX_PIXELS},
        rendering::{RenderFailure, Renderer},
    },
    model::Format,
};

use super::{heif_commands, renderer};

/// Time in which a file must have its result: the child is killed after 30 seconds, a HEIF command after 30 more.
const LONGEST: Duration = Duration::from_secs(70);

/// Returns the result of the inspection that confirm makes of a file.
pub(super) fn confirmed(file: &[u8]) -> Result<Content, ContentError> {
    let mut inspector = ContentInspector::new(file.len() as u64, MAX_PIXELS);
    loop {
        let wanted = inspector.wanted();
        let range = usize::try_from(wanted.start).unwrap()..usize::try_from(wanted.end).unwrap();
        if let Some(verdict) = inspector.supply(&file[range]) {
            return verdict;
        }
    }
}

/// Adds all files below a folder to `found`, in the order of their names, except scripts and texts.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            files(&entry, found);
        } else if !["py", "md", "txt", "json", "rs", "dict"]
            .iter()
            .any(|name| entry.extension().is_some_and(|extension| extension == *name))
        {
            found.push(entry);
        }
    }
}

/// Renders a file, and writes its pictures into the folder, with its number in their names. Returns the file's format, its
/// outcome, and a list of the pictures.
async fn row(renderer: &Renderer, number: usize, path: &Path, folder: &Path) -> (Option<Format>, String, Value) {
    let file: Bytes = fs::read(path).unwrap().into();
    let content = match confirmed(&file) {
        Ok(content) => content,
        Err(error) => return (None, format!("refused at confirm: {}", error.as_str()), json!([])),
    };
    let began = Instant::now();
    let rendered = renderer.render(content.format, file).await;
    assert!(began.elapsed() < LONGEST, "{}: {:?}", path.display(), began.elapsed());
    match rendered {
        Ok(rendered) => {
            let pictures = rendered.pictures.iter().enumerate().map(|(at, picture)| {
                let name = format!("{number}-{at}.jpg");
                fs::write(folder.join(&name), &picture.jpeg).unwrap();
                json!({"file": name, "width": picture.width, "height": picture.height})
            });
            (Some(content.format), "pictures".to_owned(), pictures.collect())
        }
        Err(RenderFailure::Crashed(cause)) => (Some(content.format), format!("crashed: {cause}"), json!([])),
        Err(failure) => (Some(content.format), failure.name().expect("a name").to_owned(), json!([])),
    }
}

/// Renders the files of the folders in `VALET_PIXELS_FILES`, which colons separate. Writes the pictures and `rendered.jsonl` into
/// the folder `VALET_PIXELS`, and prints the number of files by format and outcome.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of .ci/pixels"]
async fn every_file_has_pictures_or_a_named_failure() {
    let folder = PathBuf::from(env::var("VALET_PIXELS").unwrap());
    let mut found = Vec::new();
    for root in env::split_paths(&env::var_os("VALET_PIXELS_FILES").unwrap()) {
        files(&root, &mut found);
    }
    let renderer = heif_commands::libheif().into_iter().fold(renderer(), Renderer::with_heif_command);
    let (mut rows, mut counts) = (String::new(), BTreeMap::new());
    for (number, path) in found.iter().enumerate() {
        let (format, outcome, pictures) = row(&renderer, number, path, &folder).await;
        let format = format.map_or("-".to_owned(), |format| format!("{format:?}"));
        rows += &format!("{}\n", json!({"path": path, "format": format, "outcome": outcome, "pictures": pictures}));
        *counts.entry((format, outcome)).or_insert(0) += 1;
    }
    fs::write(folder.join("rendered.jsonl"), rows).unwrap();
    for ((format, outcome), count) in &counts {
        println!("{count:6} {format:5} {outcome}");
    }
    let crashed = counts.keys().filter(|(_, outcome)| outcome.starts_with("crashed")).count();
    assert!(crashed == 0 && !found.is_empty(), "{crashed} kinds of crashes in {} files", found.len());
}
