//! How an operator names one report: by its domain, or by its report-id as in a Subject.

use std::str::FromStr;

use jiff::civil::Date;

use crate::mail::Domain;

/// One report, or the latest of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Which {
    /// By its report domain.
    Domain(Domain),
    /// By its id, which tells day and domain.
    Id {
        /// The id, without angle brackets.
        id: String,
        /// The UTC day it covers.
        day: Date,
        /// The report domain.
        domain: Domain,
    },
}

impl Which {
    /// The report domain.
    pub(super) fn domain(&self) -> &Domain {
        match self {
            Self::Domain(domain) | Self::Id { domain, .. } => domain,
        }
    }

    /// The day, if the id tells it.
    pub(super) fn day(&self) -> Option<Date> {
        match self {
            Self::Domain(_) => None,
            Self::Id { day, .. } => Some(*day),
        }
    }
}

impl FromStr for Which {
    type Err = String;

    /// Report-ids of ours are `YYYYMMDD.random.domain@submitter`.
    fn from_str(text: &str) -> Result<Self, String> {
        let id = text.trim_start_matches('<').trim_end_matches('>');
        let Some((left, _)) = id.rsplit_once('@') else {
            return Domain::parse(text).map(Self::Domain).map_err(|error| error.to_string());
        };
        let no_id = || format!("{text:?} is neither a domain nor the report-id of a report of ours");
        let mut parts = left.splitn(3, '.');
        let day = parts.next().and_then(|day| Date::strptime("%Y%m%d", day).ok()).ok_or_else(no_id)?;
        let domain = parts.nth(1).and_then(|domain| Domain::parse(domain).ok()).ok_or_else(no_id)?;
        Ok(Self::Id { id: id.to_owned(), day, domain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Mailbox;
    use crate::tlsrpt::report::report_id;

    #[test]
    fn a_report_is_named_by_its_domain_or_by_the_id_we_gave_it() {
        let domain = Domain::parse("a.b.example").unwrap();
        assert_eq!("a.b.example".parse(), Ok(Which::Domain(domain.clone())));
        let day = Date::new(2026, 11, 21).unwrap();
        let id = report_id(day, 7, &domain, &Mailbox::parse("tls@sender.example").unwrap());
        for written in [id.clone(), format!("<{id}>")] {
            assert_eq!(written.parse(), Ok(Which::Id { id: id.clone(), day, domain: domain.clone() }));
        }
        for bad in ["", "a..b", "x@y", "20261121.7@y", "20261399.7.a.example@y"] {
            assert!(bad.parse::<Which>().is_err(), "{bad}");
        }
    }
}
