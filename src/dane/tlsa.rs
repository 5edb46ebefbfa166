//! TLSA records and what a lookup of them can say (RFC 6698 §2.1, RFC 7672 §2.1).

use std::fmt;

use super::x509;

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
    /// selector and matching type known, digest of the right length, full data a certificate or key.
    pub fn is_usable(&self) -> bool {
        matches!(self.usage, 2 | 3)
            && match (self.selector, self.matching) {
                (0, 0) => x509::public_key(&self.data).is_some(),
                (1, 0) => x509::bare_key(&self.data).is_some(),
                (0 | 1, 1) => self.data.len() == 32,
                (0 | 1, 2) => self.data.len() == 64,
                _ => false,
            }
    }
}

/// The records to match against: those that are usable, and of digests only the strongest one of each
/// usage and selector (RFC 7671 §9: so that a weak digest, once broken, cannot be used beside a strong
/// one).
pub fn usable(records: &[Tlsa]) -> Vec<Tlsa> {
    let usable: Vec<&Tlsa> = records.iter().filter(|record| record.is_usable()).collect();
    let strongest = |of: &Tlsa| {
        let kin = usable.iter().filter(|kin| (kin.usage, kin.selector) == (of.usage, of.selector));
        kin.map(|kin| kin.matching).max()
    };
    // Full data is no digest: it stays beside any. Of the two digests the higher number is the stronger.
    let counts = |record: &&&Tlsa| record.matching == 0 || Some(record.matching) == strongest(record);
    usable.iter().filter(counts).map(|record| (*record).clone()).collect()
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

    fn record(usage: u8, selector: u8, matching: u8, len: usize) -> Tlsa {
        Tlsa { usage, selector, matching, data: vec![0; len] }
    }

    #[test]
    fn full_data_is_usable_when_it_is_what_the_selector_says() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().der().to_vec();
        let key = x509::public_key(&certificate).unwrap().der.to_vec();
        for (selector, data, expected) in
            [(0, &certificate, true), (1, &key, true), (0, &key, false), (1, &certificate, false)]
        {
            let record = Tlsa { usage: 3, selector, matching: 0, data: data.clone() };
            assert_eq!(record.is_usable(), expected, "{selector}");
        }
        // Digest agility leaves full data alone.
        let full = Tlsa { usage: 3, selector: 1, matching: 0, data: key };
        let records = [full.clone(), record(3, 1, 1, 32), record(3, 1, 2, 64)];
        assert_eq!(super::usable(&records), [full, record(3, 1, 2, 64)]);
    }

    #[test]
    fn of_digests_only_the_strongest_of_each_usage_and_selector_counts() {
        let records = [
            record(3, 1, 1, 32),
            record(3, 1, 2, 64),
            record(3, 0, 1, 32),
            record(2, 1, 1, 32),
            record(2, 0, 2, 63), // unusable, so not the strongest
            record(2, 0, 1, 32),
            record(1, 1, 2, 64),
        ];
        let kept = [1, 2, 3, 5].map(|index: usize| records[index].clone());
        assert_eq!(super::usable(&records), kept);
        assert_eq!(super::usable(&[]), []);
    }

    #[test]
    fn usable_are_usages_2_and_3_with_known_fields_and_whole_digests() {
        let usable = |usage, selector, matching, len| record(usage, selector, matching, len).is_usable();
        for usage in [2, 3] {
            for selector in [0, 1] {
                assert!(!usable(usage, selector, 0, 1), "neither a certificate nor a key");
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
