//! Accepts connections on the admin socket, reads requests line by line, writes the answers.
//!
//! Bounded: connections, octets of a line, idle time. What a request does is in `answer`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::answer::AdminHandles;
use super::protocol::{Answer, Call, REQUEST_BYTES_MAX, Request, VERSION};
use super::socket::AdminSocket;

/// People and scripts at the same time.
const CONNECTIONS_MAX: usize = 32;
/// A connection that asks nothing for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// After a failed accept (no descriptors left), before trying again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers on the socket until `shutdown`. Requests under way are dropped then.
pub async fn serve(socket: AdminSocket, handles: AdminHandles, shutdown: CancellationToken) {
    let handles = Arc::new(handles);
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = socket.listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "the admin socket could not accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            debug!("admin connection refused: too many");
            continue;
        };
        let (handles, shutdown) = (Arc::clone(&handles), shutdown.clone());
        connections.spawn(async move {
            let _permit = permit;
            let answer = |request| {
                let handles = Arc::clone(&handles);
                async move { handles.answer(request).await }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                ended = converse(stream, answer) => if let Err(error) = ended {
                    debug!(%error, "admin connection ended");
                }
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn converse<F: Future<Output = Answer>>(
    stream: UnixStream,
    answer: impl Fn(Request) -> F,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = REQUEST_BYTES_MAX as u64 + 1;
        let mut bounded = (&mut stream).take(limit);
        match timeout(IDLE_MAX, bounded.read_until(b'\n', &mut line)).await {
            Err(_) | Ok(Ok(0)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(_)) => {}
        }
        let whole = line.last() == Some(&b'\n');
        let said = match understand(&line) {
            _ if !whole => refuse("the request is too long"),
            Ok(request) => answer(request).await,
            Err(refusal) => refusal,
        };
        let mut text = serde_json::to_vec(&said)?;
        text.push(b'\n');
        timeout(IDLE_MAX, stream.write_all(&text)).await??;
        if !whole {
            // The rest of the line is unread: nothing after it can be understood.
            return Ok(());
        }
    }
}

fn understand(line: &[u8]) -> Result<Request, Answer> {
    /// Read first: a request of another version may have another shape.
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    match serde_json::from_slice::<Version>(line) {
        Ok(Version { version: VERSION }) => {}
        Ok(Version { version }) => {
            return Err(refuse(&format!(
                "the daemon speaks protocol version {VERSION}, the command line {version}; use the same release"
            )));
        }
        Err(error) => return Err(refuse(&format!("not a request: {error}"))),
    }
    let call = serde_json::from_slice::<Call>(line);
    call.map(|call| call.request).map_err(|error| refuse(&format!("not a request: {error}")))
}

fn refuse(text: &str) -> Answer {
    Answer::Failed { text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn say(bytes: &[u8]) -> Vec<Answer> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = converse(theirs, |request| async move {
            match request {
                Request::QueueStats { .. } => Answer::Changed { count: 7 },
                other => refuse(&format!("{other:?}")),
            }
        });
        let client = async {
            let (read, mut write) = ours.into_split();
            // The server may close before everything is written: that is its right.
            let _ = write.write_all(bytes).await;
            drop(write);
            let mut text = String::new();
            let _ = BufReader::new(read).read_to_string(&mut text).await;
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Answer>>()
        };
        let (_, answers) = tokio::join!(server, client);
        answers
    }

    #[tokio::test]
    async fn several_requests_are_answered_in_turn() {
        let line = b"{\"version\":2,\"do\":\"queue-stats\",\"destinations\":9}\n".repeat(3);
        assert_eq!(say(&line).await, vec![Answer::Changed { count: 7 }; 3]);
    }

    #[tokio::test]
    async fn what_is_not_understood_is_refused_in_words() {
        for (line, word) in [
            (&b"hello\n"[..], "not a request"),
            (b"{\"version\":1,\"do\":\"queue-stats\"}\n", "use the same release"),
            (
                b"{\"version\":2,\"do\":\"queue-list\",\"filter\":{\"sander\":\"a\"},\"history\":true}\n",
                "sander",
            ),
            (b"{\"version\":2,\"do\":\"fly\"}\n", "not a request"),
            (b"\xff\xfe\n", "not a request"),
            (b"{\"version\":2", "too long"),
        ] {
            match say(line).await.as_slice() {
                [Answer::Failed { text }] => assert!(text.contains(word), "{text}"),
                other => panic!("{line:?}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn an_endless_line_is_cut_off() {
        let answers = say(&vec![b' '; REQUEST_BYTES_MAX * 4]).await;
        // The reset may overtake the answer on its way; nothing else may come.
        assert!(answers.len() <= 1, "{answers:?}");
    }
}
