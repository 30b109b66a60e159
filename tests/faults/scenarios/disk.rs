//! F23 of MongoDB: the disk of its data is full. mongod aborts when it cannot write its journal; when the disk has space again,
//! acknowledged writes still exist.
//!
//! The disk is a tmpfs in its own mount namespace, which needs no privileges and leaves nothing behind. Without support for such
//! namespaces the test is skipped with a message.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use mongodb::bson::doc;

use super::{
    super::{cluster::Options, replica_set::ReplicaSet, servers::scratch_dir, skipping::skip},
    Scenario, fault_duration,
};

/// A small tmpfs, which exists as long as `holder`, in whose mount namespace it is mounted.
struct Disk {
    holder: Child,
    path: PathBuf,
}

impl Disk {
    /// Mounts a tmpfs of this size in MiB; `None` if mount namespaces are not available.
    fn mount(mib: u32) -> Option<Self> {
        let dir = scratch_dir().join(uuid::Uuid::new_v4().to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let hold = format!("mount -t tmpfs -o size={mib}m none \"$1\" && echo mounted && read -r end");
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &hold, "disk"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take()?).read_line(&mut line).ok()?;
        let path = PathBuf::from(format!("/proc/{}/root{}", holder.id(), dir.display()));
        let disk = Self { holder, path };
        (line == "mounted\n" && File::create(disk.path.join("probe")).is_ok()).then_some(disk)
    }

    /// Fills the disk to the last byte.
    fn fill(&self) {
        let mut file = File::create(self.path.join("filler")).unwrap();
        // Ever smaller pieces, for the space that is left.
        for piece in [vec![0; 1 << 20], vec![0; 4096], vec![0]] {
            while file.write_all(&piece).is_ok() {}
        }
    }

    /// Deletes the file that fills the disk.
    fn clear(&self) {
        std::fs::remove_file(self.path.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f23_full_disk_of_the_database_loses_nothing() {
    let Some(disk) = Disk::mount(450) else {
        return skip("mount namespaces are not available");
    };
    let set = ReplicaSet::start(1, &disk.path).await;
    let mut scenario = Scenario::start(Options { mongodb: Some(set.uri()), ..Options::default() }, 20).await;
    disk.fill();
    // Writes to the data files within a second; the default is once a minute.
    set.run(0, doc! { "setParameter": 1, "syncdelay": 1 }).await.unwrap();
    scenario.run_until_unavailable("F23, the database", fault_duration(8, 60)).await;
    disk.clear();
    // mongod has aborted by itself or is stuck.
    set.kill(0);
    set.restart();
    set.primary().await;
    scenario.assert_recovered("F23, the database").await;
    scenario.end().await;
}
