//! The asking side of the admin socket: blocking, one question at a time. Called by `cli`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::protocol::{ANSWER_BYTES_MAX, Answer, Call, Request, VERSION};

/// The longest a daemon may think: `report send` posts to slow endpoints.
const ANSWER_WITHIN: Duration = Duration::from_secs(900);

/// A connection to the daemon.
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or we may not.
    #[error("cannot reach the daemon at {}: {source}{hint}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// It went away, or said what we do not understand.
    #[error("the daemon at {} gave no answer: {text}", path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What happened.
        text: String,
    },
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`]
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let connected = UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            stream.set_write_timeout(Some(ANSWER_WITHIN))?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => Ok(Self { path: path.to_owned(), stream: BufReader::new(stream) }),
            Err(source) => {
                let hint = match source.kind() {
                    io::ErrorKind::PermissionDenied => "; run this as the daemon's user or group",
                    _ => "; is it running, and does --config name its configuration (admin.socket)?",
                };
                Err(ClientError::Unreachable { path: path.to_owned(), source, hint })
            }
        }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError::NoAnswer`]
    pub fn ask(&mut self, request: Request) -> Result<Answer, ClientError> {
        let no_answer = |path: &Path, text: String| ClientError::NoAnswer { path: path.to_owned(), text };
        let mut line = serde_json::to_vec(&Call { version: VERSION, request })
            .map_err(|error| no_answer(&self.path, error.to_string()))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(|error| no_answer(&self.path, error.to_string()))?;
        line.clear();
        self.stream
            .by_ref()
            .take(ANSWER_BYTES_MAX as u64)
            .read_until(b'\n', &mut line)
            .map_err(|error| no_answer(&self.path, error.to_string()))?;
        if line.last() != Some(&b'\n') {
            return Err(no_answer(&self.path, "it closed the connection".to_owned()));
        }
        serde_json::from_slice(&line).map_err(|error| no_answer(&self.path, error.to_string()))
    }
}
