//! SMTP replies and enhanced status codes (RFC 5321 §4.2, RFC 3463, RFC 2034).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `class.subject.detail` (RFC 3463 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnhancedStatus {
    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    pub class: u8,
    /// 0 to 999.
    pub subject: u16,
    /// 0 to 999.
    pub detail: u16,
}

impl EnhancedStatus {
    /// A status code; the caller gives a class of 2, 4 or 5.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }

    /// The same subject and detail in another class, e.g. a transient cause at expiry.
    pub const fn with_class(self, class: u8) -> Self {
        Self { class, ..self }
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl FromStr for EnhancedStatus {
    type Err = ();

    /// Strict: class 2, 4 or 5; one to three digits without leading zeros each.
    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |part: Option<&str>| -> Result<u16, ()> {
            let part = part.ok_or(())?;
            let canonical = !part.is_empty()
                && part.len() <= 3
                && part.bytes().all(|b| b.is_ascii_digit())
                && (part == "0" || !part.starts_with('0'));
            if canonical { part.parse().map_err(|_| ()) } else { Err(()) }
        };
        let mut parts = text.split('.');
        let class = match parts.next() {
            Some("2") => 2,
            Some("4") => 4,
            Some("5") => 5,
            _ => return Err(()),
        };
        let status = Self { class, subject: number(parts.next())?, detail: number(parts.next())? };
        if parts.next().is_some() { Err(()) } else { Ok(status) }
    }
}

impl Serialize for EnhancedStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EnhancedStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| serde::de::Error::custom("not an enhanced status code"))
    }
}

/// A reply as received from, or sent to, a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Three digits; the first decides (RFC 5321 §4.2.1).
    pub code: u16,
    /// From the start of the first line, if well-formed and of the code's class (RFC 2034 §4).
    pub enhanced: Option<EnhancedStatus>,
    /// The text of each line, code and enhanced code taken off. Printable: control characters and
    /// invalid UTF-8 have been replaced, so that a line may go into a log, a DSN or a terminal.
    pub lines: Vec<String>,
}

impl Reply {
    /// A one-line reply of our own.
    pub fn new(code: u16, enhanced: EnhancedStatus, text: impl Into<String>) -> Self {
        Self { code, enhanced: Some(enhanced), lines: vec![text.into()] }
    }

    /// 2yz
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3yz
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// 4yz
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5yz
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }
}

/// One line: code, enhanced code, and all text joined with blanks.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        for line in self.lines.iter().filter(|line| !line.is_empty()) {
            write!(f, " {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_codes_are_strict() {
        for good in ["2.0.0", "4.7.999", "5.1.10"] {
            assert_eq!(good.parse::<EnhancedStatus>().unwrap().to_string(), good);
        }
        for bad in ["", "3.0.0", "5.1", "5.01.1", "5.1.1000", "5.1.1.1", "5.+1.1", "5..1"] {
            assert!(bad.parse::<EnhancedStatus>().is_err(), "{bad}");
        }
    }
}
