//! Who is logged in, what their forms carry, and what is to be said to them next.
//!
//! A session begins with a token and lives in memory: 32 random octets in a cookie name it. A form is
//! believed only with a code that this process alone can make of the cookie (an HMAC under a key of its own):
//! a page elsewhere cannot know it, not even one that can set our cookies. Bounded in number and time.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::Instant;

use super::super::http::Access;

/// Sessions at a time; beyond, the oldest ends.
const SESSIONS_MAX: usize = 64;
/// A session's life, however busy: a working day.
const LIFE: Duration = Duration::from_secs(12 * 3600);
/// Notes that wait to be shown; beyond, the oldest is dropped.
const NOTES_MAX: usize = 64;
/// Characters of a name as cookies hold it: 32 octets in base64.
const NAME_CHARS: usize = 43;

/// See the file's header.
pub(super) struct Sessions {
    key: hmac::Key,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    open: VecDeque<Session>,
    /// For whom, and what.
    notes: VecDeque<(String, Note)>,
}

struct Session {
    name: String,
    access: Access,
    ends: Instant,
}

/// What came of a form, told on the next page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// Whether it went wrong.
    pub failed: bool,
    /// One sentence.
    pub text: String,
}

/// Without randomness nothing here can be kept safe, and there is none to be had.
#[derive(Debug)]
pub(super) struct NoRandomness;

impl Sessions {
    pub(super) fn new() -> Result<Self, NoRandomness> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random()?);
        Ok(Self { key, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session; gives its name.
    pub(super) fn begin(&self, access: Access) -> Result<String, NoRandomness> {
        let name = new_name()?;
        let mut state = self.lock();
        let now = Instant::now();
        state.open.retain(|session| now < session.ends);
        while state.open.len() >= SESSIONS_MAX {
            state.open.pop_front();
        }
        state.open.push_back(Session { name: name.clone(), access, ends: now + LIFE });
        Ok(name)
    }

    /// What whoever shows this name may do.
    pub(super) fn access(&self, name: &str) -> Option<Access> {
        let (state, now) = (self.lock(), Instant::now());
        // The names are as long as keys and made here: whoever could measure how far a comparison comes
        // would still have to guess the first octets among 64 sessions at most.
        let found = state.open.iter().find(|session| {
            aws_lc_rs::constant_time::verify_slices_are_equal(session.name.as_bytes(), name.as_bytes())
                .is_ok()
        });
        found.filter(|session| now < session.ends).map(|session| session.access)
    }

    /// Ends a session.
    pub(super) fn end(&self, name: &str) {
        let mut state = self.lock();
        state.open.retain(|session| session.name != name);
        state.notes.retain(|(whose, _)| whose != name);
    }

    /// The code that forms of this visitor carry.
    pub(super) fn code(&self, name: &str) -> String {
        let tag = hmac::sign(&self.key, format!("form {name}").as_bytes());
        URL_SAFE_NO_PAD.encode(tag.as_ref())
    }

    /// Whether a form carries it.
    pub(super) fn is_code(&self, name: &str, code: &str) -> bool {
        let tag = URL_SAFE_NO_PAD.decode(code);
        tag.is_ok_and(|tag| hmac::verify(&self.key, format!("form {name}").as_bytes(), &tag).is_ok())
    }

    /// To be said on this visitor's next page.
    pub(super) fn note(&self, name: &str, note: Note) {
        let mut state = self.lock();
        while state.notes.len() >= NOTES_MAX {
            state.notes.pop_front();
        }
        state.notes.push_back((name.to_owned(), note));
    }

    /// What is to be said to this visitor, once.
    pub(super) fn take_notes(&self, name: &str) -> Vec<Note> {
        let mut state = self.lock();
        let (mine, others) = state.notes.drain(..).partition(|(whose, _)| whose == name);
        state.notes = others;
        let mine: VecDeque<(String, Note)> = mine;
        mine.into_iter().map(|(_, note)| note).collect()
    }
}

fn random() -> Result<[u8; 32], NoRandomness> {
    let mut octets = [0; 32];
    rand::fill(&mut octets).map_err(|_| NoRandomness)?;
    Ok(octets)
}

/// A name nobody can guess.
pub(super) fn new_name() -> Result<String, NoRandomness> {
    Ok(URL_SAFE_NO_PAD.encode(random()?))
}

/// Whether a cookie holds what could be a name of ours.
pub(super) fn is_name(text: &str) -> bool {
    text.len() == NAME_CHARS && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_in_its_time_or_when_asked_to() {
        let sessions = Sessions::new().unwrap();
        let name = sessions.begin(Access::Act).unwrap();
        let reader = sessions.begin(Access::Read).unwrap();
        assert!(is_name(&name) && name != reader);
        assert_eq!(
            (sessions.access(&name), sessions.access(&reader)),
            (Some(Access::Act), Some(Access::Read))
        );
        assert_eq!((sessions.access(""), sessions.access("guessed")), (None, None));
        sessions.end(&reader);
        assert_eq!(sessions.access(&reader), None);
        tokio::time::advance(LIFE - Duration::from_secs(1)).await;
        assert_eq!(sessions.access(&name), Some(Access::Act));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(sessions.access(&name), None);
    }

    #[test]
    fn very_many_sessions_and_notes_take_bounded_memory() {
        let sessions = Sessions::new().unwrap();
        let names: Vec<String> =
            (0..SESSIONS_MAX + 5).map(|_| sessions.begin(Access::Act).unwrap()).collect();
        assert_eq!(sessions.access(&names[4]), None);
        assert_eq!(sessions.access(&names[5]), Some(Access::Act));
        for n in 0..NOTES_MAX + 5 {
            sessions.note("a", Note { failed: false, text: n.to_string() });
        }
        sessions.note("b", Note { failed: true, text: "b".into() });
        let notes = sessions.take_notes("a");
        assert_eq!((notes.len(), notes[0].text.as_str()), (NOTES_MAX - 1, "6"));
        assert!(sessions.take_notes("a").is_empty());
        assert_eq!(sessions.take_notes("b").len(), 1);
    }

    #[test]
    fn a_form_is_believed_with_the_code_of_its_visitor_and_this_process_only() {
        let (sessions, other) = (Sessions::new().unwrap(), Sessions::new().unwrap());
        let code = sessions.code("visitor");
        assert!(sessions.is_code("visitor", &code));
        for (name, bad) in [
            ("another", code.as_str()),
            ("visitor", ""),
            ("visitor", &code[1..]),
            ("visitor", &other.code("visitor")),
            ("visitor", "not base64!"),
        ] {
            assert!(!sessions.is_code(name, bad), "{name} {bad}");
        }
    }
}
