//! The users file: read at start and at reload, and again by itself when it has changed.
//!
//! A file that cannot be used leaves the users before in place and is told of once; a file that is being
//! written is left alone until two looks in a row see it the same. So there is never a moment without
//! users. Made by `config`; looked at by [`watch_users`], asked by `session`; [`hash_password`] and
//! [`scram_password`] also by the command line.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::book::Book;
use super::Options;
use crate::net::world::aside;

pub(super) mod book;

/// Octets of a users file at most: some 50 000 users; more belong into a database.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The users, as the users file has them now. Cheap to clone; all clones see the same.
#[derive(Clone, Default)]
pub struct Users(Arc<Live>);

#[derive(Default)]
struct Live {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    book: Arc<Book>,
    /// Of the file that the users are from, or that could not be used.
    judged: Option<Stamp>,
    /// Of the last look.
    seen: Option<Stamp>,
}

/// What tells one version of a file from another; a file that is not there has one too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamp {
    File { modified: (i64, i64), size: u64, inode: u64 },
    Gone,
}

impl Stamp {
    fn of(path: &Path) -> Self {
        std::fs::metadata(path).map_or(Self::Gone, |facts| Self::File {
            modified: (facts.mtime(), facts.mtime_nsec()),
            size: facts.len(),
            inode: facts.ino(),
        })
    }
}

/// What a look at the file brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// As before.
    Same,
    /// It has changed, perhaps not for the last time.
    Changing,
    /// So many users are in force now.
    Taken(usize),
    /// It cannot be used; the users before stay.
    Refused,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Users({})", self.len())
    }
}

impl Users {
    /// Reads a users file.
    ///
    /// # Errors
    /// One line: the file, the line in it, what is wrong.
    pub fn load(path: &Path) -> Result<Self, String> {
        let stamp = Stamp::of(path);
        let state = State { book: Arc::new(read(path)?), judged: Some(stamp), seen: Some(stamp) };
        Ok(Self(Arc::new(Live { file: Some(path.to_owned()), state: Mutex::new(state) })))
    }

    /// Reads the lines of a users file: `name:$argon2id$...`, or
    /// `name:{SCRAM-SHA-256}iterations,salt,StoredKey,ServerKey`, or both for a name; made by
    /// `stsrelay user hash`. Empty lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// The number of the line, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let state = State { book: Arc::new(Book::parse(text)?), ..State::default() };
        Ok(Self(Arc::new(Live { file: None, state: Mutex::new(state) })))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.book().len()
    }

    /// Whether nobody can authenticate.
    pub fn is_empty(&self) -> bool {
        self.book().is_empty()
    }

    /// Those who cannot log in by SCRAM, if others can.
    pub fn without_scram(&self) -> Vec<String> {
        let book = self.book();
        let names = if book.knows_scram() { book.without_scram() } else { Vec::new() };
        names.into_iter().map(str::to_owned).collect()
    }

    /// Whether anybody can log in by SCRAM.
    pub fn knows_scram(&self) -> bool {
        self.book().knows_scram()
    }

    /// Whether there is a user of this name.
    pub fn has(&self, name: &str) -> bool {
        self.book().has(name)
    }

    pub(super) fn book(&self) -> Arc<Book> {
        Arc::clone(&self.lock().book)
    }

    /// Looks whether the file has changed, and takes it then. Blocking.
    fn look(&self) -> Looked {
        let Some(file) = &self.0.file else { return Looked::Same };
        let stamp = Stamp::of(file);
        {
            let mut state = self.lock();
            if state.judged == Some(stamp) {
                state.seen = Some(stamp);
                return Looked::Same;
            }
            if state.seen.replace(stamp) != Some(stamp) {
                return Looked::Changing;
            }
        }
        let result = read(file);
        let mut state = self.lock();
        state.judged = Some(stamp);
        match result {
            Ok(book) => {
                let users = book.len();
                state.book = Arc::new(book);
                drop(state);
                tracing::info!(file = %file.display(), users, "users file read again");
                Looked::Taken(users)
            }
            Err(error) => {
                drop(state);
                tracing::error!(%error, "users file cannot be used, the users before stay");
                Looked::Refused
            }
        }
    }

    /// Valid after a panic elsewhere: every change is one assignment.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Result<Book, String> {
    let file = path.display();
    let size = std::fs::metadata(path).map_err(|error| format!("{file}: {error}"))?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{file}: a users file may have {FILE_BYTES_MAX} octets, this has {size}"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{file}: {error}"))?;
    Book::parse(&text).map_err(|(line, what)| format!("{file}:{line}: {what}"))
}

/// Looks at the users file of the options in force every few seconds, until `shutdown`.
pub async fn watch_users(options: watch::Receiver<Arc<Options>>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let users = options.borrow().users.clone();
        if users.0.file.is_some() {
            // A panic in there would leave the users as they are.
            let _ = aside(move || users.look()).await;
        }
    }
}

/// The argon2id hash of a password with a fresh salt, for the users file.
pub fn hash_password(password: &str) -> String {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash: PasswordHash| hash.to_string())
        .expect("the default parameters are valid and the system gives random octets")
}

/// The SCRAM-SHA-256 form of a password with a fresh salt, for the users file.
pub fn scram_password(password: &str) -> String {
    book::scram_secret(password)
}

/// Whether clients can use this password with SCRAM (RFC 4013).
pub fn scram_accepts(password: &str) -> bool {
    super::scram::prepare(password).is_some()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    impl Users {
        /// What the watch does within some seconds of a change.
        pub(in crate::submission) fn look_twice(&self) {
            self.look();
            self.look();
        }
    }

    /// A cheap hash, for tests that check many passwords: 64 KiB, one pass.
    pub(in crate::submission) fn cheap_hash(password: &str) -> String {
        let parameters = argon2::Params::new(64, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
        let hash: PasswordHash =
            argon2.hash_password_with_salt(password.as_bytes(), b"saltsaltsaltsalt").unwrap();
        hash.to_string()
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Users::load(Path::new("/nonexistent/users")).unwrap_err();
        assert!(error.starts_with("/nonexistent/users: "), "{error}");
    }

    #[test]
    fn a_file_that_changes_is_read_again_once_it_is_still() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        let line = |name: &str| format!("{name}:{}\n", cheap_hash("x"));
        std::fs::write(&file, line("alice")).unwrap();
        let users = Users::load(&file).unwrap();
        let clone = users.clone();
        assert_eq!(users.look(), Looked::Same);

        std::fs::write(&file, line("alice") + &line("bob")).unwrap();
        assert_eq!((users.look(), users.len()), (Looked::Changing, 1));
        std::fs::write(&file, line("alice") + &line("bob") + &line("carol")).unwrap();
        assert_eq!((users.look(), users.len()), (Looked::Changing, 1));
        assert_eq!(users.look(), Looked::Taken(3));
        assert!(clone.has("carol"), "every session sees them");
        assert_eq!(users.look(), Looked::Same);

        std::fs::write(&file, "nonsense\n").unwrap();
        assert_eq!(
            (users.look(), users.look(), users.look()),
            (Looked::Changing, Looked::Refused, Looked::Same)
        );
        assert!(users.has("carol"), "the users before stay");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(
            (users.look(), users.look(), users.look()),
            (Looked::Changing, Looked::Refused, Looked::Same)
        );
        assert!(users.has("carol"));

        // A new file in its place, as editors and secret stores do.
        let beside = folder.path().join("new");
        std::fs::write(&beside, line("dave")).unwrap();
        std::fs::rename(&beside, &file).unwrap();
        assert_eq!((users.look(), users.look()), (Looked::Changing, Looked::Taken(1)));
        assert!(users.has("dave") && !users.has("alice"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_of_the_options_in_force_is_watched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        std::fs::write(&file, format!("alice:{}\n", cheap_hash("x"))).unwrap();
        let mut options = Options::new(crate::mail::Domain::parse("relay.example.org").unwrap());
        options.users = Users::load(&file).unwrap();
        let users = options.users.clone();
        let (_sender, receiver) = watch::channel(Arc::new(options));
        let shutdown = CancellationToken::new();
        let watching = tokio::spawn(watch_users(receiver, shutdown.clone()));
        std::fs::write(&file, format!("bob:{}\n# more\n", cheap_hash("x"))).unwrap();
        tokio::time::sleep(LOOK_EVERY * 3).await;
        assert!(users.has("bob") && !users.has("alice"));
        shutdown.cancel();
        watching.await.unwrap();
    }
}
