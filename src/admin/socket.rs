//! The listening end of the admin socket: made, replaced when stale, removed at the end.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Owner and group may ask; the group is the operators'.
const MODE: u32 = 0o660;
/// Of a directory that is made for the socket; it may be the data directory too.
const FOLDER_MODE: u32 = 0o750;

/// A bound admin socket; its file is removed when this is dropped.
pub struct AdminSocket {
    /// Where connections come in.
    pub(super) listener: UnixListener,
    path: PathBuf,
}

/// Binds the socket, making its directory if needed. A left-over file is replaced only when nobody
/// answers on it. Must be called inside a runtime.
///
/// # Errors
/// What is in the way, as a sentence.
pub fn bind(path: &Path) -> Result<AdminSocket, String> {
    let failed = |what: &str, error: io::Error| format!("{what} {}: {error}", path.display());
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)
            .map_err(|error| failed("cannot make the directory of", error))?;
    }
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(format!("{} is in the way and is not a socket", path.display()));
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(format!("another daemon answers on {}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|error| failed("cannot remove the stale socket", error))?;
            }
            Err(error) => return Err(failed("cannot tell who uses the socket", error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("cannot use the socket", error)),
    }
    let listener = UnixListener::bind(path).map_err(|error| failed("cannot bind", error))?;
    let socket = AdminSocket { listener, path: path.to_owned() };
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))
        .map_err(|error| failed("cannot set the mode of", error))?;
    Ok(socket)
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // Best effort: a stale file is replaced at the next start anyway.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run").join("admin.sock");
        // Left over by a process that was killed: the file stays, nobody listens.
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());

        let first = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let error = bind(&path).err().unwrap();
        assert!(error.starts_with("another daemon answers on"), "{error}");
        drop(first);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "dear").unwrap();
        assert!(bind(&path).err().unwrap().contains("not a socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "dear");
    }
}
