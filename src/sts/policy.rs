//! The policy file (RFC 8461 §3.2, §4.1).
//!
//! Pure. Parsed once where it is fetched; the text is kept verbatim because reports repeat it
//! (RFC 8460 §4.4). A [`StsPolicy`] is valid by construction: there is no other way to make one.
//! Never fetches and never says how long a policy lives: that is `freshness`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::mail::{Domain, DomainError};

/// A valid policy. Serialises to its text and is parsed again when read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StsPolicy {
    /// What to do when validation fails.
    pub mode: Mode,
    /// At least one, unless the mode is [`Mode::None`].
    pub mx: Vec<MxPattern>,
    /// Seconds, at most [`MAX_AGE_MAX`] (larger values are clamped).
    pub max_age: u32,
    text: String,
    /// Shared with everything that names the policy: each delivery under it is counted with these.
    lines: Arc<[String]>,
    patterns: Arc<[String]>,
    warnings: Vec<&'static str>,
}

/// The greatest `max_age`, in seconds: about a year (RFC 8461 §3.2).
pub const MAX_AGE_MAX: u32 = 31_557_600;

/// Octets of a policy body at most (RFC 8461 §3.3 suggests 64 kilobytes).
pub const POLICY_BYTES_MAX: usize = 64 * 1024;

/// Digits of `max_age` at most (RFC 8461 §3.2).
const MAX_AGE_DIGITS_MAX: usize = 10;

/// Characters in a key at most (RFC 8461 §3.2).
const KEY_BYTES_MAX: usize = 32;

/// `mode` (RFC 8461 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Never deliver to a host that fails validation.
    Enforce,
    /// Deliver anyway and report.
    Testing,
    /// As if there were no policy.
    None,
}

/// One `mx` value: a host name, or `*.` and a name (exactly one label, RFC 8461 §4.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MxPattern {
    /// `mail.example.com`
    Exact(Domain),
    /// `*.example.com`
    Wildcard(Domain),
}

/// Why a body is no policy (`sts-policy-invalid`, RFC 8460 §4.3.2.2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(pub String);

impl StsPolicy {
    /// Reads a policy body.
    ///
    /// # Errors
    /// [`PolicyError`] says which line or key is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, PolicyError> {
        if body.len() > POLICY_BYTES_MAX {
            return Err(PolicyError(format!("policy is longer than {POLICY_BYTES_MAX} octets")));
        }
        let text = std::str::from_utf8(body).map_err(|_| PolicyError("policy is not UTF-8".to_owned()))?;
        let mut fields = Fields::default();
        let mut blank_seen = false;
        for (index, line) in text.split('\n').enumerate() {
            // RFC 8461 §3.2 and erratum 6253: LF or CRLF, also mixed; the last terminator is optional.
            let line = line.strip_suffix('\r').unwrap_or(line).trim_end_matches(WSP);
            if line.is_empty() {
                blank_seen = true;
                continue;
            }
            if blank_seen {
                fields.warn("blank line between the fields");
            }
            fields.read(line).map_err(|what| PolicyError(format!("line {}: {what}", index + 1)))?;
        }
        fields.finish(text)
    }

    /// Whether `mx`, the MX record's name, is allowed (RFC 8461 §4.1).
    pub fn allows(&self, mx: &Domain) -> bool {
        self.mx.iter().any(|pattern| pattern.matches(mx))
    }

    /// The body verbatim.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is odd in the body without making it invalid, for the operator.
    pub fn warnings(&self) -> &[&'static str] {
        &self.warnings
    }

    /// The lines as declared, oddities and unknown keys kept, line ends taken off, blank lines left
    /// out: `policy-string` of TLS-RPT (RFC 8460 §4.5).
    pub fn lines(&self) -> &Arc<[String]> {
        &self.lines
    }

    /// The `mx` patterns as texts: `mx-host` of TLS-RPT (RFC 8460 §4.4).
    pub fn patterns(&self) -> &Arc<[String]> {
        &self.patterns
    }
}

const WSP: [char; 2] = [' ', '\t'];

/// The fields seen so far.
#[derive(Default)]
struct Fields {
    version: Option<()>,
    mode: Option<Mode>,
    max_age: Option<u32>,
    mx: Vec<MxPattern>,
    warnings: Vec<&'static str>,
}

impl Fields {
    fn warn(&mut self, what: &'static str) {
        if !self.warnings.contains(&what) {
            self.warnings.push(what);
        }
    }

    /// One line without its end and trailing blanks.
    fn read(&mut self, line: &str) -> Result<(), String> {
        let (key, value) = line.split_once(':').ok_or_else(|| format!("no \":\" in {}", shown(line)))?;
        // The grammar has no blank before `:` and none at the start of a line.
        let key_ok = key.len() <= KEY_BYTES_MAX
            && key.starts_with(|c: char| c.is_ascii_alphanumeric())
            && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if !key_ok {
            return Err(format!("bad key {}", shown(key)));
        }
        let value = value.trim_start_matches(WSP);
        if value.chars().any(char::is_control) {
            return Err(format!("control character in the value of {key}"));
        }
        // RFC 8461 §3.2: of a repeated key other than mx the first counts, the others are ignored.
        // Keys are case-sensitive; unknown ones are ignored.
        match key {
            "version" if self.version.is_none() => match value {
                "STSv1" => self.version = Some(()),
                _ => return Err(format!("version is {}, not \"STSv1\"", shown(value))),
            },
            "mode" if self.mode.is_none() => self.mode = Some(parse_mode(value)?),
            "max_age" if self.max_age.is_none() => {
                let (max_age, clamped) = parse_max_age(value)?;
                self.max_age = Some(max_age);
                if clamped {
                    self.warn("max_age above 31557600 was lowered to it");
                }
            }
            "mx" => self.mx.push(MxPattern::parse(value)?),
            "version" | "mode" | "max_age" => self.warn("repeated key; the first counts"),
            _ => {}
        }
        Ok(())
    }

    fn finish(self, text: &str) -> Result<StsPolicy, PolicyError> {
        let missing = |key: &str| PolicyError(format!("{key} is missing"));
        self.version.ok_or_else(|| missing("version"))?;
        let mode = self.mode.ok_or_else(|| missing("mode"))?;
        let max_age = self.max_age.ok_or_else(|| missing("max_age"))?;
        // RFC 8461 §3.2: mx may be left out only with mode none.
        if self.mx.is_empty() && mode != Mode::None {
            return Err(missing("mx"));
        }
        let lines = text.lines().map(|line| line.trim_end_matches('\r'));
        Ok(StsPolicy {
            mode,
            max_age,
            text: text.to_owned(),
            lines: lines.filter(|line| !line.trim().is_empty()).map(str::to_owned).collect(),
            patterns: self.mx.iter().map(ToString::to_string).collect(),
            mx: self.mx,
            warnings: self.warnings,
        })
    }
}

fn parse_mode(value: &str) -> Result<Mode, String> {
    match value {
        "enforce" => Ok(Mode::Enforce),
        "testing" => Ok(Mode::Testing),
        "none" => Ok(Mode::None),
        _ => Err(format!("mode is {}, not \"enforce\", \"testing\" or \"none\"", shown(value))),
    }
}

/// The value and whether it had to be clamped (the RFC names a maximum and no consequence).
fn parse_max_age(value: &str) -> Result<(u32, bool), String> {
    let bad = || format!("max_age is {}, not a number of seconds", shown(value));
    if value.len() > MAX_AGE_DIGITS_MAX || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let seconds: u64 = value.parse().map_err(|_| bad())?;
    match u32::try_from(seconds) {
        Ok(seconds) if seconds <= MAX_AGE_MAX => Ok((seconds, false)),
        _ => Ok((MAX_AGE_MAX, true)),
    }
}

/// What a stranger wrote, quoted, escaped and short enough for a log line and a report.
fn shown(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// [`DomainError`] without the name, which `shown` has said already.
fn reason(error: &DomainError) -> &'static str {
    match error {
        DomainError::Empty => "empty",
        DomainError::TooLong => "too long",
        DomainError::EmptyLabel => "empty label",
        DomainError::BadLabel(_) | DomainError::Idna(_) => "not an A-label name",
        DomainError::Address => "an address",
    }
}

impl MxPattern {
    fn parse(value: &str) -> Result<Self, String> {
        let (name, make): (_, fn(Domain) -> Self) = match value.strip_prefix("*.") {
            Some(name) => (name, Self::Wildcard),
            None => (value, Self::Exact),
        };
        // RFC 8461 §3.2: A-labels only; a U-label is a malformed value.
        Domain::parse_a_label(name)
            .map(make)
            .map_err(|error| format!("mx {} is no host name ({})", shown(value), reason(&error)))
    }

    /// Whether the pattern covers this name; both are lower-case A-labels without final dot.
    pub fn matches(&self, mx: &Domain) -> bool {
        match self {
            Self::Exact(name) => name == mx,
            // RFC 8461 §4.1: the wildcard stands for exactly one label, the left-most.
            Self::Wildcard(parent) => {
                mx.as_str().split_once('.').is_some_and(|(_, rest)| rest == parent.as_str())
            }
        }
    }
}

/// As in the policy: `mail.example.com` or `*.example.com`.
impl fmt::Display for MxPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// As in the policy: `enforce`, `testing`, `none`.
impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        })
    }
}

// Serialises to its text; reading it parses again.
impl Serialize for StsPolicy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for StsPolicy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
