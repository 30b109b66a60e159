//! Covers restarts, broken connections and killed servers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

use super::{ACCESS, BUCKET, ByteStream, Client, Duration, Path, SECRET, Server, client, expect, fresh_root, replay, sha256};
use crate::app::eventually;

/// Runs the server of the crash test, in a child process so that it can be killed.
#[tokio::test]
#[ignore = "started by killed_server_keeps_acknowledged_objects"]
async fn child() {
    let Ok(root) = std::env::var("VALET_TEST_S3_ROOT") else {
        crate::skipping::skip("only killed_server_keeps_acknowledged_objects runs this test");
        return;
    };
    let server = Server::start_at(root.into()).await;
    // On stderr, which the harness of a single thread does not capture under --nocapture.
    eprintln!("\nbase={}", server.base);
    server.task.await.unwrap();
}

/// A server in another process.
struct ChildServer {
    process: tokio::process::Child,
    base: String,
    /// Standard error, open until the process ends, so that the process can write to it.
    _stderr: tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStderr>>,
}

/// Runs [`child`] in another process.
async fn start_child(root: &Path) -> ChildServer {
    let mut process = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "local_s3::crashes::child", "--nocapture"])
        .env("VALET_TEST_S3_ROOT", root)
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(process.stderr.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("the child prints its address");
        if let Some(base) = line.strip_prefix("base=") {
            return ChildServer { process, base: base.to_owned(), _stderr: lines };
        }
    }
}

/// Returns the bytes of the object with this number.
fn numbered(number: usize) -> Vec<u8> {
    vec![u8::try_from(number % 251).unwrap(); 200_000 + number]
}

/// Writes objects with numbers from `first` on until the server is killed; returns the acknowledged ones.
async fn write_until_killed(s3: Client, first: usize, written: Arc<AtomicUsize>) -> Vec<usize> {
    let mut acknowledged = Vec::new();
    for number in first.. {
        let put = s3.put_object().bucket(BUCKET).key(format!("k{number}")).if_none_match("*");
        let put = put.checksum_sha256(sha256(&numbered(number))).body(ByteStream::from(numbered(number)));
        if put.send().await.is_err() {
            break;
        }
        acknowledged.push(number);
        written.fetch_add(1, Ordering::SeqCst);
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_server_keeps_acknowledged_objects() {
    let root = fresh_root();
    let mut acknowledged = Vec::new();
    for round in 0..6_usize {
        let mut server = start_child(&root).await;
        let s3 = client(&server.base, ACCESS, SECRET);
        let written = Arc::<AtomicUsize>::default();
        let write = |writer: usize| write_until_killed(s3.clone(), round * 10_000 + writer * 1000, written.clone());
        let writers: Vec<_> = (0..4).map(|writer| tokio::spawn(write(writer))).collect();
        while written.load(Ordering::SeqCst) < 4 {
            assert!(!writers.iter().all(|writer| writer.is_finished()), "the server accepts objects");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Each round kills the server at another moment.
        tokio::time::sleep(Duration::from_millis(60 + 37 * round as u64)).await;
        server.process.kill().await.unwrap();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
    }
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    let server = Server::start_at(root).await;
    assert_eq!(server.temporary_files(), 0);
    let mut listed = Vec::new();
    let mut pages = server.s3.list_objects_v2().bucket(BUCKET).into_paginator().send();
    while let Some(page) = pages.next().await {
        listed.extend(page.unwrap().contents().iter().map(|object| object.key().unwrap()[1..].parse::<usize>().unwrap()));
    }
    for number in &acknowledged {
        assert!(listed.contains(number), "k{number} was acknowledged");
    }
    for number in listed {
        assert!(server.read(&format!("k{number}")).await == numbered(number), "k{number} is whole");
    }
    server.end().await;
}

#[tokio::test]
async fn restart_keeps_all_objects() {
    let server = Server::start().await;
    server.put("../a", b"one").await;
    server.put("torn", b"to be torn").await;
    let create = server.s3.create_multipart_upload().bucket(BUCKET).key("m").send().await.unwrap();
    let id = create.upload_id().unwrap();
    let part = server.s3.upload_part().bucket(BUCKET).key("m").upload_id(id).part_number(1);
    part.body(ByteStream::from_static(b"part")).send().await.unwrap();
    let etag = server.s3.head_object().bucket(BUCKET).key("../a").send().await.unwrap().e_tag;
    let root = server.stop().await;

    // A killed server leaves only files in tmp. An object that is cut short does not exist for clients.
    std::fs::write(root.join("tmp/half"), b"half an object").unwrap();
    std::fs::create_dir(root.join("tmp/dir")).unwrap();
    let objects = root.join("buckets").join(BUCKET).join("objects");
    let mut files = std::fs::read_dir(&objects).unwrap().map(|entry| entry.unwrap().path());
    let torn = files.find(|file| std::fs::read(file).unwrap().starts_with(b"to be torn")).unwrap();
    let whole = std::fs::read(&torn).unwrap();
    std::fs::write(&torn, &whole[..whole.len() - 5]).unwrap();
    std::fs::write(objects.join("tiny"), b"x").unwrap();

    let server = Server::start_at(root).await;
    assert_eq!(server.temporary_files(), 0);
    assert_eq!(server.read("../a").await, b"one");
    assert!(!server.exists("torn").await);
    let signed = server.sign_put("torn", b"again").await;
    let put = replay(&server.http, &signed).body("again").send().await.unwrap();
    expect(put, 200, "").await;
    server.s3.delete_object().bucket(BUCKET).key("torn").send().await.unwrap();
    assert_eq!(server.s3.head_object().bucket(BUCKET).key("../a").send().await.unwrap().e_tag, etag);
    assert_eq!(server.s3.list_objects_v2().bucket(BUCKET).send().await.unwrap().contents().len(), 1);
    let parts = server.s3.list_parts().bucket(BUCKET).key("m").upload_id(id).send().await.unwrap();
    assert_eq!(parts.parts().len(), 1);
    server.end().await;
}

#[tokio::test]
async fn broken_upload_leaves_nothing() {
    let server = Server::start().await;
    let signed = server.sign_put("k", &[5; 100_000]).await;
    let path = signed.uri().strip_prefix(&server.base).unwrap().to_owned();
    let host = server.base.strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(host).await.unwrap();
    let mut head = format!("PUT {path} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in signed.headers() {
        head += &format!("{name}: {value}\r\n");
    }
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(b"\r\nonly this much").await.unwrap();
    eventually("a part of the body has arrived", async || server.temporary_files() > 0).await;
    drop(socket);
    eventually("the temporary file is removed", async || server.temporary_files() == 0).await;
    assert!(!server.exists("k").await);
    server.end().await;
}
