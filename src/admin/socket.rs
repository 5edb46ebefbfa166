//! The listening end of the admin socket and of HTTP over one: made, replaced when stale, removed at the end.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Owner and group may ask; the group is the operators'.
const MODE: u32 = 0o660;
/// Mode bits of a directory.
const EVERYBODY_WRITES: u32 = 0o002;
/// Of a directory whose files only their owners may remove.
const STICKY: u32 = 0o1000;
/// Of a directory that is made for the socket; it may be the data directory too.
const FOLDER_MODE: u32 = 0o750;

/// A bound socket; its file is removed when this is dropped, unless another one has taken its place.
pub struct AdminSocket {
    /// Where connections come in.
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file.
    file: (u64, u64),
}

/// Binds the socket, making its directory if needed. A left-over file is replaced only when nobody
/// answers on it. Nobody ever sees the socket with a wider mode. Must be called inside a runtime.
///
/// # Errors
/// What is in the way, as a sentence.
pub fn bind(path: &Path) -> Result<AdminSocket, String> {
    let failed = |what: &str, error: io::Error| format!("{what} {}: {error}", path.display());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(folder)
        .map_err(|error| failed("cannot make the directory of", error))?;
    let mode = fs::metadata(folder).map_err(|error| failed("cannot look at the directory of", error))?.mode();
    if mode & (EVERYBODY_WRITES | STICKY) == EVERYBODY_WRITES {
        return Err(format!(
            "{} may be written to by everybody, who could put another socket there",
            folder.display()
        ));
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
    // Under a name of its own until it has its mode, since the mode it is born with is the umask's.
    let born = folder.join(format!(".{}", std::process::id()));
    let _ = fs::remove_file(&born);
    let listener = UnixListener::bind(&born).map_err(|error| failed("cannot bind", error))?;
    let ready = fs::set_permissions(&born, fs::Permissions::from_mode(MODE))
        .and_then(|()| fs::rename(&born, path))
        .and_then(|()| fs::symlink_metadata(path));
    match ready {
        Ok(metadata) => {
            let file = (metadata.dev(), metadata.ino());
            Ok(AdminSocket { listener, path: path.to_owned(), file })
        }
        Err(error) => {
            let _ = fs::remove_file(&born);
            Err(failed("cannot set the mode of", error))
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file);
        if ours {
            // Best effort: a stale file is replaced at the next start anyway.
            let _ = fs::remove_file(&self.path);
        }
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

    #[tokio::test]
    async fn a_link_is_never_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (folder.path().join("admin.sock"), folder.path().join("elsewhere"));
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(bind(&path).err().unwrap().contains("not a socket"));
        // Also not to a socket that is stale.
        drop(std::os::unix::net::UnixListener::bind(&elsewhere).unwrap());
        assert!(bind(&path).err().unwrap().contains("not a socket"));
        assert!(elsewhere.exists() && fs::symlink_metadata(&path).unwrap().file_type().is_symlink());
    }

    #[tokio::test]
    async fn a_directory_that_everybody_may_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, good) in [(0o777, false), (0o772, false), (0o1777, true), (0o770, true), (0o750, true)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            let bound = bind(&folder.path().join("admin.sock"));
            assert_eq!(bound.is_ok(), good, "{mode:o}: {:?}", bound.err());
        }
    }

    #[tokio::test]
    async fn nothing_is_left_and_nothing_of_another_daemon_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let first = bind(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // Somebody put another one there meanwhile.
        fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }
}
