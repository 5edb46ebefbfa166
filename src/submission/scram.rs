//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), the server's side.
//!
//! Pure: messages without their base64 in, messages out; the server's nonce and the channel binding
//! are passed in. A password is never here but when a verifier is made or PLAIN brings one. A name that
//! nobody has goes through the same steps with a salt of its own that stays the same, and fails at the
//! end, so that names cannot be probed. Called by `sasl` and `users`.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac, pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Octets of SHA-256, and so of every key.
const KEY_BYTES: usize = 32;
/// Octets of a salt that we make.
const SALT_BYTES: usize = 16;
/// Octets of a salt at most.
const SALT_BYTES_MAX: usize = 64;
/// Octets of our part of the nonce before base64.
const NONCE_BYTES: usize = 18;
/// RFC 7677 §4: fewer iterations are too cheap to guess.
const ITERATIONS_MIN: u32 = 4096;
/// Beyond, one check of a PLAIN password would take a second of a core.
const ITERATIONS_MAX: u32 = 2_000_000;
/// Of a verifier that we make: some 30 ms of a core for whoever logs in, or guesses.
const ITERATIONS: u32 = 100_000;
/// The channel binding type we have (RFC 9266).
const BINDING_TYPE: &str = "tls-exporter";

/// What stands for a TLS session (RFC 9266 §2).
pub(crate) type Binding = [u8; KEY_BYTES];

/// What a server keeps of a password: enough to check it, not enough to log in elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Verifier {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: [u8; KEY_BYTES],
    server_key: [u8; KEY_BYTES],
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} iterations)", self.iterations)
    }
}

impl Verifier {
    /// The verifier of a password, with a fresh salt.
    pub(super) fn fresh(password: &str) -> Self {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).expect("the system gives random octets");
        let iterations = NonZeroU32::new(ITERATIONS).expect("a constant");
        Self::of(password.as_bytes(), &salt, iterations)
    }

    fn of(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let (stored_key, server_key) = keys(password, salt, iterations);
        Self { iterations, salt: salt.to_vec(), stored_key, server_key }
    }

    /// Reads `iterations,salt,StoredKey,ServerKey`, the last three in base64.
    ///
    /// # Errors
    /// What is wrong, for a sentence that begins with whose it is.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(',').collect();
        let [iterations, salt, stored_key, server_key] = parts[..] else {
            return Err("is not {SCRAM-SHA-256}iterations,salt,StoredKey,ServerKey".to_owned());
        };
        let iterations: u32 = iterations.parse().map_err(|_| "has no number of iterations".to_owned())?;
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(format!(
                "has {iterations} iterations; {ITERATIONS_MIN} (RFC 7677 section 4) to {ITERATIONS_MAX} are taken"
            ));
        }
        let salt = STANDARD.decode(salt).map_err(|_| "has a salt that is not base64".to_owned())?;
        if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
            return Err(format!("has a salt of {} octets; 1 to {SALT_BYTES_MAX} are taken", salt.len()));
        }
        let key = |text: &str| {
            let octets = STANDARD.decode(text).ok().and_then(|octets| octets.try_into().ok());
            octets.ok_or_else(|| format!("has a key that is not {KEY_BYTES} octets in base64"))
        };
        Ok(Self {
            iterations: NonZeroU32::new(iterations).ok_or("has no iterations")?,
            salt,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// As [`Self::parse`] reads it.
    pub(super) fn render(&self) -> String {
        let [salt, stored, server] =
            [&self.salt[..], &self.stored_key, &self.server_key].map(|octets| STANDARD.encode(octets));
        format!("{},{salt},{stored},{server}", self.iterations)
    }

    /// Whether it is this password's; takes its time, on purpose.
    pub(super) fn fits(&self, password: &[u8]) -> bool {
        let (stored_key, _) = keys(password, &self.salt, self.iterations);
        verify_slices_are_equal(&stored_key, &self.stored_key).is_ok()
    }

    /// What makes [`StandIn`]s of a users file unlike those of another.
    pub(super) fn stand_in(&self) -> StandIn {
        let mut seed = digest::Context::new(&digest::SHA256);
        seed.update(b"a salt for a name that nobody has");
        seed.update(&self.stored_key);
        seed.update(&self.server_key);
        StandIn {
            key: hmac::Key::new(hmac::HMAC_SHA256, seed.finish().as_ref()),
            salt_bytes: self.salt.len().min(KEY_BYTES),
            iterations: self.iterations,
        }
    }
}

/// Makes verifiers for names that nobody has: always the same for a name, over restarts and on every
/// relay with the same users, and not to be told from others without the users file.
#[derive(Debug, Clone)]
pub(super) struct StandIn {
    key: hmac::Key,
    salt_bytes: usize,
    iterations: NonZeroU32,
}

impl StandIn {
    pub(super) fn verifier(&self, name: &str) -> Verifier {
        let tag = hmac::sign(&self.key, name.as_bytes());
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(hmac::sign(&self.key, tag.as_ref()).as_ref());
        Verifier {
            iterations: self.iterations,
            salt: tag.as_ref()[..self.salt_bytes].to_vec(),
            stored_key: key,
            server_key: key,
        }
    }
}

/// SASLprep (RFC 4013): what looks the same is the same. `None` when the text cannot be a name or a
/// password.
pub(super) fn prepare(text: &str) -> Option<Cow<'_, str>> {
    stringprep::saslprep(text).ok().filter(|prepared| !prepared.is_empty())
}

/// RFC 5802 §3: StoredKey and ServerKey.
fn keys(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> ([u8; KEY_BYTES], [u8; KEY_BYTES]) {
    let prepared = str::from_utf8(password).ok().and_then(prepare);
    let password = prepared.as_ref().map_or(password, |text| text.as_bytes());
    let mut salted = [0; KEY_BYTES];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut salted);
    let client_key = sign(&salted, b"Client Key");
    (hash(&client_key), sign(&salted, b"Server Key"))
}

fn sign(key: &[u8], message: &[u8]) -> [u8; KEY_BYTES] {
    let mut out = [0; KEY_BYTES];
    out.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref());
    out
}

fn hash(message: &[u8]) -> [u8; KEY_BYTES] {
    let mut out = [0; KEY_BYTES];
    out.copy_from_slice(digest::digest(&digest::SHA256, message).as_ref());
    out
}

/// Our part of a nonce.
pub(super) fn fresh_nonce() -> String {
    let mut nonce = [0; NONCE_BYTES];
    rand::fill(&mut nonce).expect("the system gives random octets");
    STANDARD.encode(nonce)
}

/// What there is of channel binding (RFC 5802 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// SCRAM-SHA-256-PLUS was chosen.
    Bound(Binding),
    /// It was offered, and the other was chosen.
    Offered,
    /// There is none.
    Absent,
}

/// Why an exchange fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScramError {
    /// Not a message of SCRAM.
    Message,
    /// A channel binding of a type that we do not have, or where none was chosen.
    BindingType,
    /// The client takes us for a server without channel binding: somebody changed what we offered.
    Downgrade,
    /// The client's TLS session is not ours.
    Binding,
    /// Wrong name or password.
    Proof,
}

/// The client's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientFirst {
    /// Whom the client claims to be, prepared.
    pub(super) name: String,
    bare: String,
    nonce: String,
    /// What `c=` must say later.
    binding: Vec<u8>,
}

impl ClientFirst {
    pub(super) fn parse(message: &[u8], channel: Channel) -> Result<Self, ScramError> {
        let text = str::from_utf8(message).map_err(|_| ScramError::Message)?;
        let (flag, rest) = text.split_once(',').ok_or(ScramError::Message)?;
        let (authzid, bare) = rest.split_once(',').ok_or(ScramError::Message)?;
        let mut binding = text.as_bytes()[..text.len() - bare.len()].to_vec();
        match (flag, channel) {
            // RFC 5802 §6: it could, and believes that we cannot.
            ("y", Channel::Offered) => return Err(ScramError::Downgrade),
            ("n", Channel::Offered | Channel::Absent) | ("y", Channel::Absent) => {}
            (flag, Channel::Bound(octets)) => match flag.strip_prefix("p=") {
                Some(BINDING_TYPE) => binding.extend_from_slice(&octets),
                Some(_) => return Err(ScramError::BindingType),
                None => return Err(ScramError::Message),
            },
            (flag, _) if flag.starts_with("p=") => return Err(ScramError::BindingType),
            _ => return Err(ScramError::Message),
        }
        // RFC 5802 §5.1: "m=" is for extensions, and whoever does not know one must fail.
        let mut attributes = bare.split(',');
        let name = attributes.next().and_then(|part| part.strip_prefix("n=")).and_then(name_of);
        let nonce = attributes.next().and_then(|part| part.strip_prefix("r="));
        let (Some(name), Some(nonce)) = (name, nonce) else { return Err(ScramError::Message) };
        if nonce.is_empty() || !nonce.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ScramError::Message);
        }
        // Never: acting for another user.
        if !authzid.is_empty() && authzid.strip_prefix("a=").and_then(name_of).as_ref() != Some(&name) {
            return Err(ScramError::Message);
        }
        Ok(Self { name, bare: bare.to_owned(), nonce: nonce.to_owned(), binding })
    }

    /// The server's first message, and what to wait with for the client's last.
    pub(super) fn challenge(self, ours: &str, verifier: Verifier, user: Option<String>) -> (String, Waiting) {
        let nonce = format!("{}{ours}", self.nonce);
        let salt = STANDARD.encode(&verifier.salt);
        let message = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let said = format!("{},{message}", self.bare);
        (message, Waiting { name: self.name, nonce, said, binding: self.binding, verifier, user })
    }
}

/// A `saslname`: "=2C" and "=3D" stand for comma and equals sign (RFC 5802 §5.1).
fn name_of(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('=') {
        name.push_str(before);
        name.push(match after.get(..2)? {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        rest = &after[2..];
    }
    name.push_str(rest);
    prepare(&name).filter(|name| !name.chars().any(char::is_control)).map(Cow::into_owned)
}

/// An exchange before the client's last message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Whom the client claims to be.
    pub(super) name: String,
    nonce: String,
    /// Both first messages.
    said: String,
    binding: Vec<u8>,
    verifier: Verifier,
    /// The user, if there is one of that name.
    user: Option<String>,
}

impl Waiting {
    /// Checks the client's last message; gives the user and the server's last message.
    pub(super) fn finish(&self, message: &[u8]) -> Result<(String, String), ScramError> {
        let text = str::from_utf8(message).map_err(|_| ScramError::Message)?;
        let (said, proof) = text.rsplit_once(",p=").ok_or(ScramError::Message)?;
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Message)?;
        let mut attributes = said.split(',');
        let binding = attributes.next().and_then(|part| part.strip_prefix("c="));
        let nonce = attributes.next().and_then(|part| part.strip_prefix("r="));
        let (Some(binding), Some(nonce)) = (binding, nonce) else { return Err(ScramError::Message) };
        let binding = STANDARD.decode(binding).map_err(|_| ScramError::Message)?;
        if verify_slices_are_equal(&binding, &self.binding).is_err() {
            return Err(ScramError::Binding);
        }
        if nonce != self.nonce || proof.len() != KEY_BYTES {
            return Err(ScramError::Proof);
        }
        let all = format!("{},{said}", self.said);
        let mut client_key = sign(&self.verifier.stored_key, all.as_bytes());
        client_key.iter_mut().zip(&proof).for_each(|(octet, proof)| *octet ^= proof);
        let proven = verify_slices_are_equal(&hash(&client_key), &self.verifier.stored_key).is_ok();
        let signature = sign(&self.verifier.server_key, all.as_bytes());
        match &self.user {
            Some(user) if proven => Ok((user.clone(), format!("v={}", STANDARD.encode(signature)))),
            _ => Err(ScramError::Proof),
        }
    }
}

/// A client, for tests: what it says last, given the server's first message.
#[cfg(test)]
pub(super) fn answer(first: &str, server_first: &str, password: &str, binding: &[u8]) -> (String, String) {
    let value = |name: &str| {
        let part = server_first.split(',').find(|part| part.starts_with(name)).unwrap();
        part[name.len()..].to_owned()
    };
    let salt = STANDARD.decode(value("s=")).unwrap();
    let iterations: NonZeroU32 = value("i=").parse().unwrap();
    let mut salted = [0; KEY_BYTES];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
    let client_key = sign(&salted, b"Client Key");
    let bare = first.splitn(3, ',').nth(2).unwrap();
    let header = &first[..first.len() - bare.len()];
    let bound = STANDARD.encode([header.as_bytes(), binding].concat());
    let said = format!("c={bound},r={}", value("r="));
    let all = format!("{bare},{server_first},{said}");
    let mut proof = sign(&hash(&client_key), all.as_bytes());
    proof.iter_mut().zip(client_key).for_each(|(octet, key)| *octet ^= key);
    let signature = sign(&sign(&salted, b"Server Key"), all.as_bytes());
    (format!("{said},p={}", STANDARD.encode(proof)), format!("v={}", STANDARD.encode(signature)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pencil() -> Verifier {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Verifier::of(b"pencil", &salt, NonZeroU32::new(4096).unwrap())
    }

    #[test]
    fn the_exchange_of_rfc_7677_section_3() {
        let first = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", Channel::Absent).unwrap();
        assert_eq!(first.name, "user");
        let (challenge, waiting) =
            first.challenge("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", pencil(), Some("user".into()));
        assert_eq!(
            challenge,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let (user, end) = waiting.finish(last.as_bytes()).unwrap();
        assert_eq!((&*user, &*end), ("user", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        // The same with an unknown user, a changed nonce and a changed proof.
        let unknown = Waiting { user: None, ..waiting.clone() };
        assert_eq!(unknown.finish(last.as_bytes()), Err(ScramError::Proof));
        for changed in [last.replace("NEkqO%", "NEkqP%"), last.replace("p=dH", "p=dI")] {
            assert_eq!(waiting.finish(changed.as_bytes()), Err(ScramError::Proof), "{changed}");
        }
        assert_eq!(waiting.finish(last.replace("biws", "eSws").as_bytes()), Err(ScramError::Binding));
        for bad in ["", "c=biws", "c=!,r=x,p=eA==", "r=x,c=biws,p=eA==", "c=biws,r=x,p=!", "p=eA=="] {
            assert_eq!(waiting.finish(bad.as_bytes()), Err(ScramError::Message), "{bad}");
        }
    }

    #[test]
    fn a_channel_that_is_bound_is_the_same_on_both_sides() {
        let channel = Channel::Bound([7; 32]);
        let first = "p=tls-exporter,,n=user,r=abc";
        let parsed = || ClientFirst::parse(first.as_bytes(), channel).unwrap();
        let (challenge, waiting) = parsed().challenge("XYZ", pencil(), Some("user".into()));
        let (last, end) = answer(first, &challenge, "pencil", &[7; 32]);
        assert_eq!(waiting.finish(last.as_bytes()), Ok(("user".into(), end)));
        let (elsewhere, _) = answer(first, &challenge, "pencil", &[8; 32]);
        assert_eq!(waiting.finish(elsewhere.as_bytes()), Err(ScramError::Binding));
        let (unbound, _) = answer(first, &challenge, "pencil", &[]);
        assert_eq!(waiting.finish(unbound.as_bytes()), Err(ScramError::Binding));
    }

    #[test]
    fn first_messages() {
        use Channel::{Absent, Bound, Offered};
        let bound = Bound([0; 32]);
        let good = |message: &str, channel, name: &str| {
            assert_eq!(ClientFirst::parse(message.as_bytes(), channel).unwrap().name, name, "{message}");
        };
        good("n,,n=tim,r=x", Absent, "tim");
        good("n,,n=tim,r=x", Offered, "tim");
        good("y,,n=tim,r=x", Absent, "tim");
        good("p=tls-exporter,,n=tim,r=x", bound, "tim");
        good("n,a=tim,n=tim,r=x", Absent, "tim");
        good("n,,n=a=2Cb=3Dc,r=x,e=more", Absent, "a,b=c");
        // RFC 4013 §3: a soft hyphen is nothing, and a Roman nine is I and X.
        good("n,,n=I\u{ad}X,r=x", Absent, "IX");
        good("n,,n=\u{2168},r=x", Absent, "IX");
        for (message, channel, error) in [
            ("y,,n=tim,r=x", Offered, ScramError::Downgrade),
            ("n,,n=tim,r=x", bound, ScramError::Message),
            ("y,,n=tim,r=x", bound, ScramError::Message),
            ("p=tls-unique,,n=tim,r=x", bound, ScramError::BindingType),
            ("p=tls-exporter,,n=tim,r=x", Offered, ScramError::BindingType),
            ("p=tls-exporter,,n=tim,r=x", Absent, ScramError::BindingType),
            ("x,,n=tim,r=x", Absent, ScramError::Message),
            ("n,,m=ext,n=tim,r=x", Absent, ScramError::Message),
            ("n,a=other,n=tim,r=x", Absent, ScramError::Message),
            ("n,x,n=tim,r=x", Absent, ScramError::Message),
            ("n,,n=,r=x", Absent, ScramError::Message),
            ("n,,n=a=2cb,r=x", Absent, ScramError::Message),
            ("n,,n=a=,r=x", Absent, ScramError::Message),
            ("n,,n=a\u{7},r=x", Absent, ScramError::Message),
            ("n,,n=tim,r=", Absent, ScramError::Message),
            ("n,,n=tim,r=a b", Absent, ScramError::Message),
            ("n,,n=tim", Absent, ScramError::Message),
            ("n,", Absent, ScramError::Message),
            ("", Absent, ScramError::Message),
        ] {
            assert_eq!(ClientFirst::parse(message.as_bytes(), channel), Err(error), "{message}");
        }
        assert_eq!(ClientFirst::parse(b"n,,n=\xff,r=x", Absent), Err(ScramError::Message));
    }

    #[test]
    fn verifiers_are_written_as_they_are_read() {
        let fresh = Verifier::fresh("p\u{2168}");
        assert_eq!(Verifier::parse(&fresh.render()).unwrap(), fresh);
        assert!(fresh.fits(b"pIX") && fresh.fits("p\u{2168}".as_bytes()) && !fresh.fits(b"pix"));
        assert_ne!(fresh, Verifier::fresh("p\u{2168}"));
        assert!(pencil().fits(b"pencil") && !pencil().fits(b"\xff"));
        assert!(!format!("{fresh:?}").contains(&STANDARD.encode(fresh.stored_key)));
        let good = pencil().render();
        for (text, what) in [
            ("", "is not {SCRAM-SHA-256}"),
            ("4096,x", "is not {SCRAM-SHA-256}"),
            (&good.replace("4096", "4095"), "RFC 7677"),
            (&good.replace("4096", "3000000"), "3000000 iterations"),
            (&good.replace("4096", "many"), "number"),
            (&good.replace("W22Z", "!!!!"), "salt"),
            (&good.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""), "salt"),
            ("4096,W22Z,W22Z,W22Z", "32 octets"),
        ] {
            assert!(Verifier::parse(text).unwrap_err().contains(what), "{text}");
        }
    }

    #[test]
    fn a_name_nobody_has_keeps_its_salt() {
        let stand_in = pencil().stand_in();
        assert_eq!(stand_in.verifier("bob"), pencil().stand_in().verifier("bob"));
        assert_ne!(stand_in.verifier("bob").salt, stand_in.verifier("eve").salt);
        assert_eq!(stand_in.verifier("bob").salt.len(), pencil().salt.len());
        assert_eq!(stand_in.verifier("bob").iterations, pencil().iterations);
        assert_ne!(stand_in.verifier("bob").salt, Verifier::fresh("x").stand_in().verifier("bob").salt);
    }
}
