//! Where the files of the configuration are: a path, or `credential:NAME` for what systemd hands to the
//! service (`LoadCredential=NAME:PATH`, systemd.exec(5)); and the secrets that are such a file's first line.
//!
//! Every `*_file` key may be either. Never shows what it read. Called by `options`, at start and at reload, and
//! by `check`.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Where systemd tells of its credentials.
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";
/// How they are named in the configuration.
const PREFIX: &str = "credential:";
/// Octets of a secret at most; a file that is larger is another file.
const SECRET_BYTES_MAX: u64 = 4096;

/// Why there is no secret.
#[derive(Debug)]
pub(super) enum SecretError {
    /// This process was not started by a service with credentials; another one may be.
    NoCredentials,
    /// It cannot be read, or is none.
    Unusable(String),
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCredentials => write!(
                f,
                "names a systemd credential, and this process has none ({DIRECTORY} is not set): \
                 only the service sees them, by LoadCredential="
            ),
            Self::Unusable(text) => f.write_str(text),
        }
    }
}

/// The path of a file that the configuration names. Asks nobody whether it is there.
///
/// # Errors
/// One sentence.
pub(super) fn locate(file: &Path) -> Result<PathBuf, SecretError> {
    locate_in(file, std::env::var_os(DIRECTORY).as_deref())
}

fn locate_in(file: &Path, directory: Option<&OsStr>) -> Result<PathBuf, SecretError> {
    match file.to_str().and_then(|text| text.strip_prefix(PREFIX)) {
        None => Ok(file.to_owned()),
        Some(name) if name.is_empty() || name.contains('/') || name.starts_with('.') => {
            Err(SecretError::Unusable(format!("{name:?} is not the name of a systemd credential")))
        }
        Some(name) => Ok(PathBuf::from(directory.ok_or(SecretError::NoCredentials)?).join(name)),
    }
}

/// Reads a secret; one line end after it is not part of it. Blocking.
///
/// # Errors
/// One sentence, without the secret.
pub(super) fn read(file: &Path) -> Result<String, SecretError> {
    read_in(file, std::env::var_os(DIRECTORY).as_deref())
}

fn read_in(file: &Path, directory: Option<&OsStr>) -> Result<String, SecretError> {
    let path = locate_in(file, directory)?;
    let failed = |error: io::Error| SecretError::Unusable(format!("{}: {error}", path.display()));
    let mut text = String::new();
    let limit = SECRET_BYTES_MAX + 1;
    File::open(&path).map_err(failed)?.take(limit).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        let text = format!("{}: more than {SECRET_BYTES_MAX} octets are no password", path.display());
        return Err(SecretError::Unusable(text));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_file_or_a_credential_of_the_service() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("smtp");
        for (text, secret) in [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), (" a b \r\n", " a b ")] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read_in(&file, None).unwrap(), secret);
            let credential = Path::new("credential:smtp");
            assert_eq!(read_in(credential, Some(folder.path().as_os_str())).unwrap(), secret);
        }
        assert!(matches!(read_in(Path::new("credential:smtp"), None), Err(SecretError::NoCredentials)));
        std::fs::write(folder.path().join("large"), "x".repeat(5000)).unwrap();
        for bad in
            ["credential:", "credential:../smtp", "credential:.x", "credential:gone", "credential:large"]
        {
            let error = read_in(Path::new(bad), Some(folder.path().as_os_str())).unwrap_err();
            assert!(matches!(error, SecretError::Unusable(_)), "{bad}");
        }
    }
}
