//! Which senders a user, or a trusted network, may write in MAIL and in the From field.
//!
//! Pure. An empty list allows all. Local parts are compared without regard to the case of ASCII letters:
//! they are lists of the operator's own addresses, not of others'. Called by `session` (MAIL) and `intake`
//! (From); made by `config`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::mail::{Mailbox, Pattern, ReversePath, header};

/// Entries shown in a refusal; a reply is one line.
const SHOWN_MAX: usize = 5;

/// One or many senders, as configuration writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// `*`: every address.
    Any,
    /// `<>`: the null reverse-path, which bounces have.
    Null,
    /// `app@example.org`
    Mailbox(Mailbox),
    /// `example.org`, `*.example.org`: every address there.
    Domain(Pattern),
}

impl Sender {
    fn allows(&self, mailbox: &Mailbox) -> bool {
        match self {
            Self::Any => true,
            Self::Null => false,
            Self::Mailbox(listed) => {
                listed.domain() == mailbox.domain() && listed.local().eq_ignore_ascii_case(mailbox.local())
            }
            Self::Domain(pattern) => mailbox.domain().domain().is_some_and(|domain| pattern.matches(domain)),
        }
    }
}

impl FromStr for Sender {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "*" => Ok(Self::Any),
            "<>" => Ok(Self::Null),
            _ if text.contains('@') => Mailbox::parse(text).map(Self::Mailbox).map_err(|error| {
                format!("{text:?}: {error}; write \"app@example.org\", \"example.org\", \"*.example.org\", \"<>\" or \"*\"")
            }),
            _ => text.parse().map(Self::Domain),
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Null => f.write_str("<>"),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
            Self::Domain(pattern) => pattern.fmt(f),
        }
    }
}

impl Serialize for Sender {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sender {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A list of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Senders(pub Vec<Sender>);

impl Senders {
    /// Whether a transaction may begin with this path.
    pub(super) fn allow(&self, path: &ReversePath) -> bool {
        self.0.is_empty()
            || match path.mailbox() {
                None => self.0.contains(&Sender::Null),
                Some(mailbox) => self.allow_mailbox(mailbox),
            }
    }

    fn allow_mailbox(&self, mailbox: &Mailbox) -> bool {
        self.0.is_empty() || self.0.iter().any(|sender| sender.allows(mailbox))
    }

    /// Whether the author named in a header section is allowed.
    ///
    /// # Errors
    /// Why not, for a reply.
    pub(super) fn check_from(&self, section: &[u8]) -> Result<(), String> {
        if self.0.is_empty() {
            return Ok(());
        }
        // RFC 5322 §3.6: exactly one. What cannot be read is shown by each reader in its own way.
        let value = match header::count(section, "From") {
            1 => header::first(section, "From").unwrap_or_default(),
            0 => return Err("the message has no From field".to_owned()),
            _ => return Err("the message has more than one From field".to_owned()),
        };
        let authors = str::from_utf8(value).ok().and_then(authors).filter(|authors| !authors.is_empty());
        let authors = authors.ok_or("the addresses in From cannot be read")?;
        match authors.iter().find(|author| !self.allow_mailbox(author)) {
            None => Ok(()),
            Some(author) => Err(format!("From may not be <{author}>; allowed: {self}")),
        }
    }
}

impl fmt::Display for Senders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, sender) in self.0.iter().take(SHOWN_MAX).enumerate() {
            write!(f, "{}{sender}", if at > 0 { ", " } else { "" })?;
        }
        if self.0.len() > SHOWN_MAX { write!(f, " and {} more", self.0.len() - SHOWN_MAX) } else { Ok(()) }
    }
}

/// The addresses of a From field (RFC 5322 §3.4), display names, comments and groups left out; `None` where
/// anything is not as it should be.
fn authors(value: &str) -> Option<Vec<Mailbox>> {
    let mut found = Vec::new();
    let mut entry = Entry::default();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted(&mut chars, entry.text())?,
            '(' => comment(&mut chars)?,
            '<' if entry.inside.is_none() => {
                entry.inside = Some(String::new());
                entry.open = true;
            }
            '>' if entry.open => entry.open = false,
            '<' | '>' => return None,
            ',' | ';' if !entry.open => found.extend(std::mem::take(&mut entry).author()?),
            // A group's name.
            ':' if entry.inside.is_none() => entry.outside.clear(),
            '\r' | '\n' => {}
            c => entry.text().push(c),
        }
    }
    found.extend(entry.author()?);
    Some(found)
}

/// One entry of the list.
#[derive(Default)]
struct Entry {
    /// What stands outside of angle brackets.
    outside: String,
    /// What stands inside, once there are some.
    inside: Option<String>,
    /// Their end is still to come.
    open: bool,
}

impl Entry {
    fn text(&mut self) -> &mut String {
        match &mut self.inside {
            Some(inside) if self.open => inside,
            _ => &mut self.outside,
        }
    }

    /// Its address, if there is one; the inner `None` is an empty place in a list.
    fn author(self) -> Option<Option<Mailbox>> {
        if self.open {
            return None;
        }
        match (&self.inside, self.outside.trim()) {
            (None, "") => Some(None),
            (None, address) => Mailbox::parse(address).ok().map(Some),
            (Some(address), _) => Mailbox::parse(address.trim()).ok().map(Some),
        }
    }
}

/// A quoted string to its end, with its quotes.
fn quoted(chars: &mut std::str::Chars<'_>, text: &mut String) -> Option<()> {
    text.push('"');
    loop {
        let c = chars.next()?;
        text.push(c);
        match c {
            '"' => return Some(()),
            '\\' => text.push(chars.next()?),
            _ => {}
        }
    }
}

/// A comment to its end; comments nest.
fn comment(chars: &mut std::str::Chars<'_>) -> Option<()> {
    let mut depth = 1;
    while depth > 0 {
        match chars.next()? {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' => drop(chars.next()?),
            _ => {}
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senders(list: &[&str]) -> Senders {
        Senders(list.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn a_path_is_allowed_by_address_domain_tree_or_the_null_rule() {
        let allows = |list: &[&str], path: &str| {
            senders(list).allow(&ReversePath::parse(&format!("<{path}>")).unwrap())
        };
        for (list, path, want) in [
            (&[][..], "anyone@example.net", true),
            (&[], "", true),
            (&["*"], "anyone@example.net", true),
            (&["*"], "", false),
            (&["app@example.org"], "APP@EXAMPLE.org", true),
            (&["app@example.org"], "app+x@example.org", false),
            (&["app@example.org"], "", false),
            (&["app@example.org", "<>"], "", true),
            (&["example.org"], "x@example.org", true),
            (&["example.org"], "x@sub.example.org", false),
            (&["*.example.org"], "x@sub.example.org", true),
            (&["*.example.org"], "x@example.org", false),
            (&["example.org"], "x@[192.0.2.1]", false),
        ] {
            assert_eq!(allows(list, path), want, "{list:?} {path}");
        }
        for bad in ["", "a@", "@example.org", "a b@example.org", "*@example.org x", "exa mple"] {
            assert!(bad.parse::<Sender>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_author_is_held_to_the_same_list() {
        let list = senders(&["example.org", "one@example.net"]);
        for good in [
            "From: a@example.org\r\n",
            "From: <a@example.org>\r\n",
            "From: \"One, Two\" <one@example.net>, b@example.org\r\n",
            "From: One\r\n (at (home)) <one@example.net>\r\n",
            "From: \"quoted part\"@example.org\r\n",
            "From: team: a@example.org, b@example.org;\r\n",
            "Subject: x\r\nfrom:\r\n a@example.org\r\n",
            "From: =?utf-8?q?a=40b?= <a@example.org>\r\n",
        ] {
            assert_eq!(list.check_from(good.as_bytes()), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("Subject: x\r\n", "no From"),
            ("From: a@example.org\r\nFrom: a@example.org\r\n", "more than one"),
            ("From: a@example.com\r\n", "<a@example.com>; allowed: example.org, one@example.net"),
            ("From: a@example.org, b@example.com\r\n", "<b@example.com>"),
            ("From: \"a@example.org\" <b@example.com>\r\n", "<b@example.com>"),
            ("From: a@example.org <b@example.com>\r\n", "<b@example.com>"),
            ("From: <a@example.org> <b@example.com>\r\n", "cannot be read"),
            ("From: <a@example.org\r\n", "cannot be read"),
            ("From: \"a <a@example.org>\r\n", "cannot be read"),
            ("From: (a <a@example.org>\r\n", "cannot be read"),
            ("From: nobody\r\n", "cannot be read"),
            ("From: <>\r\n", "cannot be read"),
            ("From:\r\n", "cannot be read"),
            ("From: team:;\r\n", "cannot be read"),
        ] {
            let error = list.check_from(bad.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
        assert!(list.check_from(b"From: \xff@example.org\r\n").is_err());
        assert_eq!(Senders::default().check_from(b""), Ok(()));
    }

    #[test]
    fn a_long_list_is_not_shown_whole() {
        let list = senders(&["a.example", "b.example", "c.example", "d.example", "e.example", "f.example"]);
        assert_eq!(list.to_string(), "a.example, b.example, c.example, d.example, e.example and 1 more");
    }
}
