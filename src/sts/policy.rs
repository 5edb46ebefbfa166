//! The policy file (RFC 8461 §3.2, §4.1).

use serde::{Deserialize, Serialize};

use crate::mail::Domain;

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
}

/// The greatest `max_age`, in seconds: about a year (RFC 8461 §3.2).
pub const MAX_AGE_MAX: u32 = 31_557_600;

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
        todo!()
    }

    /// Whether `mx`, the MX record's name, is allowed (RFC 8461 §4.1).
    pub fn allows(&self, mx: &Domain) -> bool {
        todo!()
    }

    /// The body verbatim.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The lines as declared, oddities and unknown keys kept, line ends taken off, blank lines left
    /// out: `policy-string` of TLS-RPT (RFC 8460 §4.5).
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines().map(|line| line.trim_end_matches('\r')).filter(|line| !line.trim().is_empty())
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
