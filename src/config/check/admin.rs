//! What is wrong with `[admin]`: its sockets, its tokens.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::Checker;
use crate::admin::HttpAddress;

/// sockaddr_un holds 108 octets, the final NUL included.
const SOCKET_BYTES_MAX: usize = 107;

pub(super) fn check(checker: &mut Checker<'_>) {
    let admin = &checker.loaded.config.admin;
    if admin.socket.as_os_str().is_empty() {
        checker.error("admin.socket", "is empty");
    }
    let sockets = [("admin.socket", Some(&admin.socket)), ("admin.http", socket_of(&admin.http))];
    for (key, path) in sockets {
        if path.is_some_and(|path| path.as_os_str().len() > SOCKET_BYTES_MAX) {
            let text = format!("is longer than the {SOCKET_BYTES_MAX} octets a Unix socket's path may have");
            checker.error(key, text);
        }
    }
    if socket_of(&admin.http).is_some_and(|path| *path == admin.socket) {
        checker.error("admin.http", "is admin.socket; it needs a socket of its own");
    }
    let tokens = [("admin.token_file", &admin.token_file), ("admin.read_token_file", &admin.read_token_file)];
    match &admin.http {
        Some(address) if !address.is_local() && tokens.iter().all(|(_, file)| file.is_none()) => {
            let text = format!(
                "{address} can be reached from elsewhere; set admin.token_file, or listen on 127.0.0.1"
            );
            checker.error("admin.http", text);
        }
        Some(_) => {}
        None => {
            for (key, _) in tokens.iter().filter(|(_, file)| file.is_some()) {
                checker.note(key, "has no effect without admin.http");
            }
        }
    }
    for (key, file) in tokens {
        if let Some(note) = file.as_deref().and_then(readable_by_all) {
            checker.note(key, note);
        }
    }
}

fn socket_of(address: &Option<HttpAddress>) -> Option<&PathBuf> {
    match address {
        Some(HttpAddress::Unix(path)) => Some(path),
        Some(HttpAddress::Tcp(_)) | None => None,
    }
}

/// What is to be said of a file with a secret that every user of this host may read.
fn readable_by_all(file: &Path) -> Option<String> {
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    let text =
        format!("{}: every user of this host may read it; chmod 640 lets the relay's group", file.display());
    (mode & 0o004 != 0).then_some(text)
}
