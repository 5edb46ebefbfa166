//! The users of one reading of a users file: its lines, and the check of a password.
//!
//! Pure but for the time a check takes. A wrong password and an unknown user cost the same, so that
//! names cannot be probed. Called by `users` and `sasl`.

use std::collections::HashMap;
use std::fmt;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordVerifier};

use crate::submission::sasl::Credentials;
use crate::submission::scram::{StandIn, Verifier, prepare};

/// Memory of one check at most, in KiB; a line that wants more is refused at load.
const MEMORY_KIB_MAX: u32 = 1 << 20;
/// Passes of one check at most.
const PASSES_MAX: u32 = 64;
/// What a SCRAM line has instead of `$argon2id$`, as other mail servers write it.
const SCRAM: &str = "{SCRAM-SHA-256}";

/// See the module.
#[derive(Default)]
pub(in crate::submission) struct Book {
    /// By prepared name.
    users: HashMap<String, User>,
    /// An unknown name is checked against somebody's hash and fails all the same.
    hash: Option<PasswordHash>,
    verifier: Option<Verifier>,
    stand_in: Option<StandIn>,
    /// Everybody has a SCRAM line.
    everybody_scram: bool,
    /// Somebody has no argon2id line.
    somebody_without_hash: bool,
}

#[derive(Default)]
struct User {
    /// As the file has it.
    name: String,
    hash: Option<PasswordHash>,
    verifier: Option<Verifier>,
}

/// One line's content.
enum Secret {
    Hash(PasswordHash),
    Verifier(Verifier),
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Book({})", self.users.len())
    }
}

impl Book {
    /// Reads the lines of a users file; see [`super::Users::parse`].
    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut book = Self::default();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                book.add(line).map_err(|what| (number, what))?;
            }
        }
        // Asked for each connection; there may be very many users.
        book.everybody_scram = book.users.values().all(|user| user.verifier.is_some());
        book.somebody_without_hash = book.users.values().any(|user| user.hash.is_none());
        Ok(book)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let (name, secret) = user(line)?;
        let again = || format!("user {name} is already there");
        let user = self.users.entry(key(name)).or_default();
        if !user.name.is_empty() && user.name != name {
            return Err(format!("user {name} is the same name as {}", user.name));
        }
        name.clone_into(&mut user.name);
        match secret {
            Secret::Hash(_) if user.hash.is_some() => return Err(again()),
            Secret::Verifier(_) if user.verifier.is_some() => return Err(again()),
            Secret::Hash(hash) => {
                self.hash.get_or_insert_with(|| hash.clone());
                user.hash = Some(hash);
            }
            Secret::Verifier(verifier) => {
                // Of the first line alone: lines that come later do not change anybody's salt.
                self.stand_in.get_or_insert_with(|| verifier.stand_in());
                self.verifier.get_or_insert_with(|| verifier.clone());
                user.verifier = Some(verifier);
            }
        }
        Ok(())
    }

    pub(in crate::submission) fn len(&self) -> usize {
        self.users.len()
    }

    pub(in crate::submission) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether there is such a user.
    pub(in crate::submission) fn has(&self, name: &str) -> bool {
        self.users.contains_key(&key(name))
    }

    /// Whether anybody can log in by SCRAM.
    pub(in crate::submission) fn knows_scram(&self) -> bool {
        self.stand_in.is_some()
    }

    /// Whether everybody can.
    pub(in crate::submission) fn everybody_scram(&self) -> bool {
        self.everybody_scram
    }

    /// Those who cannot log in by SCRAM, in order.
    pub(in crate::submission) fn without_scram(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.users.values().filter(|user| user.verifier.is_none()).map(|user| &*user.name).collect();
        names.sort_unstable();
        names
    }

    /// Checks a password; gives the user's name as the file has it. Takes its time, on purpose.
    pub(in crate::submission) fn check(&self, credentials: &Credentials) -> Option<String> {
        let user = self.users.get(&key(&credentials.name));
        // Both kinds are tried where there are users with one of them only, whoever is asked about.
        let hash = user.and_then(|user| user.hash.as_ref()).or(self.hash.as_ref());
        let hash_fits =
            hash.map(|hash| Argon2::default().verify_password(&credentials.password, hash).is_ok());
        let verifier = user.and_then(|user| user.verifier.as_ref()).or(self.verifier.as_ref());
        let verifier_fits =
            verifier.filter(|_| self.somebody_without_hash).map(|v| v.fits(&credentials.password));
        let fits = |user: &&User| if user.hash.is_some() { hash_fits } else { verifier_fits } == Some(true);
        user.filter(fits).map(|user| user.name.clone())
    }

    /// What SCRAM goes on with for a name: its verifier and the user, or one that never fits.
    pub(in crate::submission) fn scram(&self, name: &str) -> Option<(Verifier, Option<String>)> {
        let stand_in = self.stand_in.as_ref()?.verifier(name);
        let user = self.users.get(&key(name)).and_then(|user| Some((user.verifier.clone()?, &user.name)));
        Some(match user {
            Some((verifier, name)) => (verifier, Some(name.clone())),
            None => (stand_in, None),
        })
    }
}

/// What looks the same is the same user (RFC 4013).
pub(in crate::submission) fn key(name: &str) -> String {
    prepare(name).map_or_else(|| name.to_owned(), std::borrow::Cow::into_owned)
}

fn user(line: &str) -> Result<(&str, Secret), String> {
    // The secret begins at the last colon: a name may be anything, `user@example.org:8` too.
    let (name, secret) = line.rsplit_once(':').ok_or("a line is name:$argon2id$...")?;
    if name.is_empty() || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("a user name is not empty and has no blanks".to_owned());
    }
    if let Some(verifier) = secret.strip_prefix(SCRAM) {
        let verifier =
            Verifier::parse(verifier).map_err(|what| format!("the SCRAM line of {name} {what}"))?;
        return Ok((name, Secret::Verifier(verifier)));
    }
    if !secret.starts_with("$argon2id$") {
        return Err(format!(
            "the password of {name} is not an argon2id hash; `stsrelay user hash` makes one"
        ));
    }
    let hash =
        PasswordHash::new(secret).map_err(|error| format!("the hash of {name} is damaged: {error}"))?;
    let parameters = argon2::Params::try_from(&hash)
        .map_err(|error| format!("the hash of {name} has bad parameters: {error}"))?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(format!("the hash of {name} is incomplete"));
    }
    if parameters.m_cost() > MEMORY_KIB_MAX || parameters.t_cost() > PASSES_MAX {
        return Err(format!(
            "the hash of {name} takes more than {MEMORY_KIB_MAX} KiB or {PASSES_MAX} passes"
        ));
    }
    Ok((name, Secret::Hash(hash)))
}

/// The SCRAM line's part after the name.
pub(super) fn scram_secret(password: &str) -> String {
    format!("{SCRAM}{}", Verifier::fresh(password).render())
}

#[cfg(test)]
mod tests {
    use super::super::tests::cheap_hash;
    use super::super::{hash_password, scram_password};
    use super::*;

    fn credentials(name: &str, password: &str) -> Credentials {
        Credentials { name: name.into(), password: password.into() }
    }

    #[test]
    fn a_hash_of_ours_is_a_line_of_a_users_file() {
        let text = format!("# people\n\n  alice@example.org:{}  \r\n", hash_password("s3cret"));
        let book = Book::parse(&text).unwrap();
        let check = |name, password| book.check(&credentials(name, password));
        assert_eq!(book.len(), 1);
        assert_eq!(check("alice@example.org", "s3cret").as_deref(), Some("alice@example.org"));
        assert_eq!(check("alice@example.org", "S3cret"), None);
        assert_eq!(check("bob", "s3cret"), None);
        assert_eq!(Book::default().check(&credentials("bob", "")), None);
        assert_ne!(hash_password("x"), hash_password("x"));
    }

    #[test]
    fn a_user_may_have_either_line_or_both() {
        let text = format!(
            "both:{}\nboth:{}\nonly:{}\nhashed:{}\n",
            cheap_hash("one"),
            scram_password("one"),
            scram_password("two"),
            cheap_hash("three")
        );
        let book = Book::parse(&text).unwrap();
        let check = |name, password| book.check(&credentials(name, password)).is_some();
        assert!(check("both", "one") && check("only", "two") && check("hashed", "three"));
        assert!(!check("both", "two") && !check("only", "one") && !check("hashed", "one"));
        assert!(!check("nobody", "one") && !check("nobody", "two"));
        assert_eq!(book.len(), 3);
        assert_eq!(book.without_scram(), ["hashed"]);
        assert!(book.scram("both").unwrap().1.is_some() && book.scram("only").unwrap().1.is_some());
        assert!(book.scram("hashed").unwrap().1.is_none() && book.scram("nobody").unwrap().1.is_none());
        assert!(Book::parse(&format!("a:{}", cheap_hash("x"))).unwrap().scram("a").is_none());
    }

    #[test]
    fn a_name_is_found_however_it_is_written() {
        let book = Book::parse(&format!("I\u{ad}X:{}", cheap_hash("x"))).unwrap();
        assert_eq!(book.check(&credentials("\u{2168}", "x")).as_deref(), Some("I\u{ad}X"));
        assert!(book.has("IX") && !book.has("ix"));
    }

    #[test]
    fn a_bad_line_is_named_with_its_number() {
        let bad = |text: &str, line: usize, what: &str| {
            let (at, why) = Book::parse(text).unwrap_err();
            assert_eq!(at, line, "{why}");
            assert!(why.contains(what), "{why}");
        };
        let (hash, scram) = (cheap_hash("x"), scram_password("x"));
        bad("alice", 1, "name:$argon2id$");
        bad(&format!("\n#\n:{hash}"), 3, "not empty");
        bad(&format!("a b:{hash}"), 1, "blanks");
        bad("alice:plaintext", 1, "argon2id");
        bad("alice:$2b$10$abcdefghijklmnopqrstuv", 1, "argon2id");
        bad("alice:$argon2id$v=19$m=64,t=1", 1, "alice");
        bad("alice:$argon2id$!!", 1, "damaged");
        bad("alice:{SCRAM-SHA-256}4096", 1, "the SCRAM line of alice is not");
        bad("alice:{SCRAM-SHA-1}4096,x,x,x", 1, "argon2id");
        bad(&format!("a:{hash}\nb:{hash}\na:{hash}"), 3, "already");
        bad(&format!("a:{scram}\na:{hash}\na:{scram}"), 3, "already");
        bad(&format!("IX:{hash}\n\u{2168}:{scram}"), 2, "same name as IX");
        bad(&format!("a:{}", hash.replace("m=64", "m=4000000")), 1, "more than");
    }
}
