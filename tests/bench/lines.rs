//! Lines and contents off a connection, without copying what is already in the buffer.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Octets read at once.
const READ_BYTES: usize = 32 * 1024;

/// A reading buffer.
#[derive(Default)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Octets of the buffer that were taken.
    taken: usize,
}

impl Lines {
    /// The octets up to and with `end`, read as needed.
    pub async fn until<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        end: &[u8],
    ) -> std::io::Result<&[u8]> {
        let mut searched = self.taken;
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer[searched..], end) {
                let from = std::mem::replace(&mut self.taken, searched + at + end.len());
                return Ok(&self.buffer[from..self.taken]);
            }
            let rest = self.buffer.len() - self.taken;
            self.buffer.copy_within(self.taken.., 0);
            self.buffer.truncate(rest);
            self.taken = 0;
            searched = rest.saturating_sub(end.len());
            self.buffer.reserve(READ_BYTES);
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// So many octets, read as needed.
    pub async fn exactly<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        octets: usize,
    ) -> std::io::Result<&[u8]> {
        while self.buffer.len() - self.taken < octets {
            let rest = self.buffer.len() - self.taken;
            self.buffer.copy_within(self.taken.., 0);
            self.buffer.truncate(rest);
            self.taken = 0;
            self.buffer.reserve(octets.max(READ_BYTES));
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let from = self.taken;
        self.taken += octets;
        Ok(&self.buffer[from..self.taken])
    }

    /// Whether another whole line is here already: its answer can wait for that one's.
    pub fn has_line(&self) -> bool {
        memchr::memchr(b'\n', &self.buffer[self.taken..]).is_some()
    }
}
