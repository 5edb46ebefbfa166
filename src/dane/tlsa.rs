//! TLSA records and what a lookup of them can say (RFC 6698 §2.1, RFC 7672 §2.1).

use std::fmt;

/// One TLSA record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tlsa {
    /// Certificate usage; 2 (DANE-TA) and 3 (DANE-EE) are usable for SMTP (RFC 7672 §3.1).
    pub usage: u8,
    /// 0 full certificate, 1 SubjectPublicKeyInfo.
    pub selector: u8,
    /// 0 full data, 1 SHA2-256, 2 SHA2-512.
    pub matching: u8,
    /// The association data.
    pub data: Vec<u8>,
}

/// What a TLSA lookup said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsaAnswer {
    /// Validated records, at least one, usable or not.
    Secure(Vec<Tlsa>),
    /// Validated or unsigned absence, or no lookup was called for.
    Absent,
    /// Records without DNSSEC: as if absent (RFC 7672 §2.1.1).
    Insecure,
    /// Bogus, SERVFAIL, time-out: the host may not be used (RFC 7672 §2.1.2).
    Failed(String),
}

impl Tlsa {
    /// Whether DANE for SMTP can use the record (RFC 7672 §3.1, RFC 6698 §4.1): usage 2 or 3,
    /// selector and matching type known, digest of the right length, full data not empty.
    pub fn is_usable(&self) -> bool {
        matches!(self.usage, 2 | 3)
            && matches!(self.selector, 0 | 1)
            && match self.matching {
                0 => !self.data.is_empty(),
                1 => self.data.len() == 32,
                2 => self.data.len() == 64,
                _ => false,
            }
    }
}

/// `U S M HEX` as TLS-RPT wants it (RFC 8460 §4.4): single blanks, lower-case unbroken hex.
impl fmt::Display for Tlsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ", self.usage, self.selector, self.matching)?;
        self.data.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usable_are_usages_2_and_3_with_known_fields_and_whole_digests() {
        let usable = |usage, selector, matching, len: usize| {
            Tlsa { usage, selector, matching, data: vec![0; len] }.is_usable()
        };
        for usage in [2, 3] {
            for selector in [0, 1] {
                assert!(usable(usage, selector, 0, 1));
                assert!(usable(usage, selector, 1, 32));
                assert!(usable(usage, selector, 2, 64));
            }
        }
        assert!(!usable(0, 1, 1, 32)); // PKIX-TA
        assert!(!usable(1, 1, 1, 32)); // PKIX-EE
        assert!(!usable(4, 1, 1, 32));
        assert!(!usable(3, 2, 1, 32));
        assert!(!usable(3, 1, 3, 32));
        assert!(!usable(3, 1, 1, 31));
        assert!(!usable(3, 1, 1, 64));
        assert!(!usable(3, 1, 2, 32));
        assert!(!usable(3, 1, 0, 0));
    }

    #[test]
    fn records_are_shown_as_reports_want_them() {
        let record = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![0x0a, 0xff] };
        assert_eq!(record.to_string(), "3 1 1 0aff");
    }
}
