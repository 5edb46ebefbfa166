//! A message's content in chunks for BDAT (RFC 3030): exact sizes, nothing stuffed.
//!
//! Content that is canonical already, as all that submission takes is, goes out as it lies in memory;
//! anything else is mended into CRLF lines first, so that no content, wherever it came from, can put a
//! stray CR or LF on the wire. A content in a file goes out in chunks of bounded size, each counted
//! before its size is said. Never touches the connection. Called by `conversation`.

use bytes::Bytes;

use crate::smtp::body::{Normalizer, is_canonical};
use crate::smtp::client::Chunk;
use crate::store::{Body, BodyReader};

/// Octets of a chunk; held in memory while it goes out, and one round trip each.
const CHUNK_BYTES: usize = 512 * 1024;

/// A content on its way.
pub(super) enum Chunks {
    /// All of it, as it is.
    Whole(Bytes),
    /// Read, mended and counted piece by piece.
    Pieces { reader: BodyReader, normalizer: Normalizer, ready: Vec<u8> },
}

impl Chunks {
    /// # Errors
    /// One sentence: the content cannot be read.
    pub(super) async fn of(body: &Body) -> Result<Self, String> {
        match body {
            Body::Memory(bytes) if is_canonical(bytes) => Ok(Self::Whole(bytes.clone())),
            _ => Ok(Self::Pieces {
                reader: body.reader().await.map_err(|error| error.to_string())?,
                normalizer: Normalizer::default(),
                ready: Vec::new(),
            }),
        }
    }

    /// The next chunk; after the last one, an empty last one.
    ///
    /// # Errors
    /// One sentence: the content cannot be read.
    pub(super) async fn next(&mut self) -> Result<(Bytes, Chunk), String> {
        match self {
            Self::Whole(bytes) => Ok((std::mem::take(bytes), Chunk::Last)),
            Self::Pieces { reader, normalizer, ready } => {
                // One octet more than a chunk shows that it is not the last.
                while ready.len() <= CHUNK_BYTES {
                    match reader.next().await.map_err(|error| error.to_string())? {
                        Some(piece) => normalizer.feed(&piece, ready),
                        None => {
                            normalizer.finish(ready);
                            // What is left is over a chunk only where the final line end made it so.
                            return Ok((std::mem::take(ready).into(), Chunk::Last));
                        }
                    }
                }
                let rest = ready.split_off(CHUNK_BYTES);
                Ok((std::mem::replace(ready, rest).into(), Chunk::More))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(body: &Body) -> Vec<(Bytes, Chunk)> {
        let mut chunks = Chunks::of(body).await.unwrap();
        let mut out = Vec::new();
        loop {
            let (bytes, chunk) = chunks.next().await.unwrap();
            out.push((bytes, chunk));
            if chunk == Chunk::Last {
                return out;
            }
        }
    }

    #[tokio::test]
    async fn canonical_content_goes_out_as_it_is_and_other_content_mended() {
        for (content, expected) in [
            (&b""[..], &b""[..]),
            (b"a\r\n.\r\n..b\r\n", b"a\r\n.\r\n..b\r\n"),
            (b"no end", b"no end\r\n"),
            (b"a\rb\nc\r\n", b"a\r\nb\r\nc\r\n"),
        ] {
            let sent = all(&Body::Memory(Bytes::from_static(content))).await;
            assert_eq!(sent, [(Bytes::from_static(expected), Chunk::Last)], "{content:?}");
        }
    }

    #[tokio::test]
    async fn a_content_in_a_file_goes_out_in_bounded_chunks_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("body");
        let line = b"0123456789abcdef\r\n";
        for lines in [1, CHUNK_BYTES / line.len() + 1, 4 * CHUNK_BYTES / line.len()] {
            let content = line.repeat(lines);
            std::fs::write(&path, &content).unwrap();
            let sent = all(&Body::File { path: path.clone(), len: content.len() as u64 }).await;
            let (last, before) = sent.split_last().unwrap();
            assert!(before.iter().all(|(bytes, chunk)| bytes.len() == CHUNK_BYTES && *chunk == Chunk::More));
            assert!(last.0.len() <= CHUNK_BYTES + 1024 && last.1 == Chunk::Last);
            let joined: Vec<u8> = sent.iter().flat_map(|(bytes, _)| bytes.to_vec()).collect();
            assert!(joined == content, "{lines}");
        }
    }

    #[tokio::test]
    async fn a_content_of_exactly_one_chunk_is_one_chunk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("body");
        let mut content = vec![b'x'; CHUNK_BYTES - 2];
        content.extend_from_slice(b"\r\n");
        std::fs::write(&path, &content).unwrap();
        let sent = all(&Body::File { path, len: content.len() as u64 }).await;
        assert_eq!(sent.len(), 1);
    }
}
