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
const PIECE: usize = 64 * 1024;
/// Silence of the sender after which a request is complete.
const SILENCE: Duration = Duration::from_millis(50);
/// Time for which the upstream may continue with a request after its client was cut off.
const GOES_ON: Duration = Duration::from_secs(10);

/// Reason for a connection's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// One side closed it.
    Closed,
    /// A fault cut it.
    Cut,
}

/// State shared by the two directions.
#[derive(Default)]
struct Shared {
    /// First bytes of the client.
    first: OnceLock<Vec<u8>>,
    /// Whether the next answer is cut.
    doomed: AtomicBool,
    /// Bytes of answers that passed under [`Fault::Truncate`].
    passed: AtomicU64,
}

/// Reason for the end of one direction.
enum Stop {
    /// The sender closed it.
    Ended,
    /// A fault cuts the connection; `true` lets the upstream continue for a while.
    Cut(bool),
}

/// Copies bytes both ways until the connection is over.
pub async fn carry(client: &mut TcpStream, mut server: TcpStream, faults: watch::Receiver<Fault>) -> End {
    let shared = Shared::default();
    let stop = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let up = up(from_client, to_server, faults.clone(), &shared);
        let down = down(from_server, to_client, faults, &shared);
        tokio::pin!(up, down);
        tokio::select! {
            // One side has finished; the other may still send.
            stop = &mut up => match stop { Stop::Ended => down.await, cut => cut },
            stop = &mut down => match stop { Stop::Ended => up.await, cut => cut },
        }
    };
    match stop {
        Stop::Ended => End::Closed,
        Stop::Cut(goes_on) => {
            if goes_on {
                tokio::spawn(async move {
                    let read = async { while server.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} };
                    let _ = tokio::time::timeout(GOES_ON, read).await;
                });
            } else {
                let _ = server.set_zero_linger();
            }
            End::Cut
        }
    }
}

/// Relays bytes from the client to the server until a side ends or a fault stops the connection.
async fn up(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut faults: watch::Receiver<Fault>, shared: &Shared) -> Stop {
    let mut piece = vec![0; PIECE];
    loop {
        let Ok(read) = from.read(&mut piece).await else { return Stop::Ended };
        shared.first.get_or_init(|| piece[..read].to_vec());
        let Some(fault) = wait_until_flowing(&mut faults, shared).await else { return Stop::Cut(false) };
        if read == 0 {
            let _ = to.shutdown().await;
            return Stop::Ended;
        }
        let cut_after = matches!(&fault, Fault::CutAfterRequest(which) if which.takes(&piece[..read]));
        if cut_after || matches!(&fault, Fault::CutBeforeAnswer(which) if which.takes(&piece[..read])) {
            shared.doomed.store(true, SeqCst);
        }
        if pass(&mut to, &piece[..read], &fault).await.is_err() {
            return Stop::Ended;
        }
        if cut_after {
            while let Ok(Ok(read @ 1..)) = tokio::time::timeout(SILENCE, from.read(&mut piece)).await {
                if to.write_all(&piece[..read]).await.is_err() {
                    break;
                }
            }
            return Stop::Cut(true);
        }
    }
}

/// Relays bytes from the server to the client until a side ends or a fault stops the connection.
async fn down(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut faults: watch::Receiver<Fault>, shared: &Shared) -> Stop {
    let mut piece = vec![0; PIECE];
    loop {
        let Ok(mut read) = from.read(&mut piece).await else { return Stop::Ended };
        let Some(fault) = wait_until_flowing(&mut faults, shared).await else { return Stop::Cut(false) };
        if read == 0 {
            let _ = to.shutdown().await;
            return Stop::Ended;
        }
        if shared.doomed.load(SeqCst) {
            return Stop::Cut(true);
        }
        let mut last = false;
        if let Fault::Truncate(most) = fault {
            let room = most.saturating_sub(shared.passed.load(SeqCst));
            last = room < read as u64;
            read = read.min(usize::try_from(room).unwrap_or(usize::MAX));
            shared.passed.fetch_add(read as u64, SeqCst);
        }
        if pass(&mut to, &piece[..read], &fault).await.is_err() {
            return Stop::Ended;
        }
        if last {
            // Shuts down in order: a reset could overtake bytes that have passed.
            let _ = to.shutdown().await;
            return Stop::Cut(false);
        }
    }
}

/// Waits until the current fault lets bytes pass, and returns it; `None` if the proxy is gone.
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
async fn pass(to: &mut WriteHalf<'_>, bytes: &[u8], fault: &Fault) -> std::io::Result<()> {
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
