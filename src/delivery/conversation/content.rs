//! Reads and writes on a connection, each write within its time: commands, replies, and a message's
//! content by DATA or BDAT.
//!
//! Content also goes out at the rate that is asked for, so that a host which takes an octet now and then
//! holds no place for hours. Called by `conversation`.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::chunks::Chunks;
use crate::net::tcp::Stream;
use crate::smtp::body::Stuffer;
use crate::smtp::client::{Chunk, Timeouts};
use crate::store::Body;

/// Octets of content written at once.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

/// Octets of a BDAT command, about.
const BDAT_BYTES: usize = 32;

/// Octets read at once; replies are short.
const READ_BYTES: usize = 4096;

/// What there is, instead of what was in `buffer`; 0 at the end.
pub(super) async fn read(stream: &mut Box<dyn Stream>, buffer: &mut Vec<u8>) -> io::Result<usize> {
    buffer.clear();
    buffer.reserve(READ_BYTES);
    stream.read_buf(buffer).await
}

pub(super) async fn send(stream: &mut Box<dyn Stream>, bytes: &[u8], within: Duration) -> Result<(), String> {
    let write = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    match timeout(within, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("timed out".to_owned()),
    }
}

/// One chunk: `BDAT`, its size, its octets (RFC 3030 §2), with what goes `before` it. Each block within its
/// time.
pub(super) async fn send_chunk(
    stream: &mut Box<dyn Stream>,
    before: Vec<u8>,
    body: &Body,
    chunks: &mut Option<Chunks>,
    within: Duration,
) -> Result<Chunk, String> {
    let chunks = match chunks {
        Some(chunks) => chunks,
        None => chunks.insert(Chunks::of(body).await?),
    };
    let (octets, chunk) = chunks.next().await?;
    let last = if chunk == Chunk::Last { " LAST" } else { "" };
    let mut first = before;
    // One write where it fits: the command alone would be a packet of its own.
    let (head, rest) = octets.split_at(octets.len().min(BLOCK_BYTES));
    first.reserve(head.len() + BDAT_BYTES);
    first.extend_from_slice(format!("BDAT {}{last}\r\n", octets.len()).as_bytes());
    first.extend_from_slice(head);
    send(stream, &first, within).await?;
    for block in rest.chunks(BLOCK_BYTES) {
        send(stream, block, within).await?;
    }
    Ok(chunk)
}

/// Each block within its time, and all of them at the rate that is asked for: a host that reads an octet
/// now and then would otherwise hold a place for hours.
pub(super) async fn send_body(
    stream: &mut Box<dyn Stream>,
    body: &Body,
    within: Duration,
    timeouts: &Timeouts,
) -> Result<(), String> {
    let Some(all) = timeouts.content(body.len()) else { return send_blocks(stream, body, within).await };
    match timeout(all, send_blocks(stream, body, within)).await {
        Ok(sent) => sent,
        Err(_) => Err(format!("content not taken within {} s", all.as_secs())),
    }
}

async fn send_blocks(stream: &mut Box<dyn Stream>, body: &Body, within: Duration) -> Result<(), String> {
    let mut stuffer = Stuffer::default();
    let mut out =
        Vec::with_capacity(BLOCK_BYTES.min(usize::try_from(body.len()).unwrap_or(BLOCK_BYTES)) + 1024);
    let mut reader = body.reader().await.map_err(|error| error.to_string())?;
    while let Some(piece) = reader.next().await.map_err(|error| error.to_string())? {
        for block in piece.chunks(BLOCK_BYTES) {
            stuffer.feed(block, &mut out);
            if out.len() >= BLOCK_BYTES {
                send(stream, &out, within).await?;
                out.clear();
            }
        }
    }
    stuffer.finish(&mut out);
    send(stream, &out, within).await
}
