//! Copies the two directions of one connection.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

use super::{Fault, contains};

/// Largest number of bytes copied at once.
const MAX_PIECE_BYTES: usize = 64 * 1024;
/// Silence of the sender after which a request is complete.
const SILENCE: Duration = Duration::from_millis(50);
/// Time for which the upstream may continue with a request after its client was cut off.
const MAX_CONTINUATION: Duration = Duration::from_secs(10);

/// Reason for a connection's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// One side closed the connection.
    Closed,
    /// A fault cut the connection.
    Cut,
}

/// State shared by the two directions.
#[derive(Default)]
struct Shared {
    /// First bytes that the client sent.
    first: OnceLock<Vec<u8>>,
    /// Whether the connection is cut when the next answer begins.
    cuts_next_answer: AtomicBool,
    /// Bytes of answers that passed under [`Fault::Truncate`].
    passed: AtomicU64,
}

/// Reason for the end of one direction.
enum Stop {
    /// The sender closed its direction.
    Ended,
    /// A fault cuts the connection.
    Cut {
        /// Whether the upstream may complete the request, for at most [`MAX_CONTINUATION`].
        upstream_continues: bool,
    },
}

/// Copies bytes in both directions until one side closes the connection or a fault cuts it; returns the reason.
pub async fn relay(client: &mut TcpStream, mut server: TcpStream, faults: watch::Receiver<Fault>) -> ConnectionEnd {
    let shared = Shared::default();
    let stop = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let requests = relay_requests(from_client, to_server, faults.clone(), &shared);
        let answers = relay_answers(from_server, to_client, faults, &shared);
        tokio::pin!(requests, answers);
        tokio::select! {
            // One side has finished; the other may still send.
            stop = &mut requests => match stop { Stop::Ended => answers.await, cut => cut },
            stop = &mut answers => match stop { Stop::Ended => requests.await, cut => cut },
        }
    };
    match stop {
        Stop::Ended => ConnectionEnd::Closed,
        Stop::Cut { upstream_continues } => {
            if upstream_continues {
                tokio::spawn(async move {
                    let read = async { while server.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} };
                    let _ = tokio::time::timeout(MAX_CONTINUATION, read).await;
                });
            } else {
                let _ = server.set_zero_linger();
            }
            ConnectionEnd::Cut
        }
    }
}

/// Copies bytes from the client to the server until a side ends or a fault stops the connection.
async fn relay_requests(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut faults: watch::Receiver<Fault>,
    shared: &Shared,
) -> Stop {
    let mut piece = vec![0; MAX_PIECE_BYTES];
    loop {
        let Ok(read) = from.read(&mut piece).await else { return Stop::Ended };
        shared.first.get_or_init(|| piece[..read].to_vec());
        let Some(fault) = wait_until_flowing(&mut faults, shared).await else { return Stop::Cut { upstream_continues: false } };
        if read == 0 {
            let _ = to.shutdown().await;
            return Stop::Ended;
        }
        let cut_after = matches!(&fault, Fault::CutAfterRequest(filter) if filter.applies_to(&piece[..read]));
        if cut_after || matches!(&fault, Fault::CutBeforeAnswer(filter) if filter.applies_to(&piece[..read])) {
            shared.cuts_next_answer.store(true, SeqCst);
        }
        if write_with_fault(&mut to, &piece[..read], &fault).await.is_err() {
            return Stop::Ended;
        }
        if cut_after {
            while let Ok(Ok(read @ 1..)) = tokio::time::timeout(SILENCE, from.read(&mut piece)).await {
                if to.write_all(&piece[..read]).await.is_err() {
                    break;
                }
            }
            return Stop::Cut { upstream_continues: true };
        }
    }
}

/// Copies bytes from the server to the client until a side ends or a fault stops the connection.
async fn relay_answers(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut faults: watch::Receiver<Fault>,
    shared: &Shared,
) -> Stop {
    let mut piece = vec![0; MAX_PIECE_BYTES];
    loop {
        let Ok(mut read) = from.read(&mut piece).await else { return Stop::Ended };
        let Some(fault) = wait_until_flowing(&mut faults, shared).await else { return Stop::Cut { upstream_continues: false } };
        if read == 0 {
            let _ = to.shutdown().await;
            return Stop::Ended;
        }
        if shared.cuts_next_answer.load(SeqCst) {
            return Stop::Cut { upstream_continues: true };
        }
        let mut last = false;
        if let Fault::Truncate(most) = fault {
            let remaining = most.saturating_sub(shared.passed.load(SeqCst));
            last = remaining < read as u64;
            read = read.min(usize::try_from(remaining).unwrap_or(usize::MAX));
            shared.passed.fetch_add(read as u64, SeqCst);
        }
        if write_with_fault(&mut to, &piece[..read], &fault).await.is_err() {
            return Stop::Ended;
        }
        if last {
            // Shuts down in order: a reset could overtake bytes that have passed.
            let _ = to.shutdown().await;
            return Stop::Cut { upstream_continues: false };
        }
    }
}

/// Waits until the current fault lets bytes pass, and returns it; `None` if the proxy was dropped.
async fn wait_until_flowing(faults: &mut watch::Receiver<Fault>, shared: &Shared) -> Option<Fault> {
    let first = shared.first.get().map_or(&[][..], Vec::as_slice);
    let flows = |fault: &Fault| match fault {
        Fault::BlackHole => false,
        Fault::BlackHoleFor(peers) => !contains(first, peers),
        _ => true,
    };
    Some(faults.wait_for(flows).await.ok()?.clone())
}

/// Writes bytes with the latency and bandwidth of the fault.
async fn write_with_fault(to: &mut WriteHalf<'_>, bytes: &[u8], fault: &Fault) -> std::io::Result<()> {
    match fault {
        Fault::Latency(latency) => tokio::time::sleep(*latency).await,
        Fault::Bandwidth(rate) => {
            // Sends a tenth of a second's worth at a time.
            let slice = usize::try_from(*rate / 10).unwrap_or(usize::MAX).max(1);
            for slice in bytes.chunks(slice) {
                tokio::time::sleep(Duration::from_secs_f64(slice.len() as f64 / *rate as f64)).await;
                to.write_all(slice).await?;
            }
            return Ok(());
        }
        _ => {}
    }
    to.write_all(bytes).await
}
