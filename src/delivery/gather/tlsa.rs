//! TLSA records of an MX host (RFC 7672 §2.2): which names are asked, and what their answers mean.
//!
//! Asks only where the addresses, or the alias that leads to them, are DNSSEC-secure: unsigned zones
//! have no records to heed, and their name servers do not always answer the question (§2.2.2).
//! Never takes a failed lookup for "no records" (§2.1.2).

use std::net::IpAddr;

use super::policies::RECHECK_WAIT;
use super::routes::check_status;
use super::{Heed, Inner};
use crate::dane::{self, TlsaAnswer};
use crate::mail::Domain;
use crate::net::dns::{Answer, Lookup};
use crate::route::DnssecStatus;

impl Inner {
    /// What the TLSA records of a host say for a port, given its addresses, and their base domain.
    pub(super) async fn tlsa(
        &self,
        host: &Domain,
        port: u16,
        addresses: &Answer<IpAddr>,
        heed: Heed,
    ) -> (TlsaAnswer, Domain) {
        let bases = match self.base_domains(host, addresses).await {
            Ok(bases) => bases,
            Err(failed) => return (failed, host.clone()),
        };
        // RFC 7672 §2.2.3: the first base domain with secure records is the one.
        let mut seen = TlsaAnswer::Absent;
        for base in bases {
            match self.tlsa_at(&base, port, heed).await {
                TlsaAnswer::Absent => {}
                TlsaAnswer::Insecure => seen = TlsaAnswer::Insecure,
                answer => return (answer, base),
            }
        }
        (seen, host.clone())
    }

    /// The candidates for the TLSA base domain, best first (RFC 7672 §2.2.2): the end of the CNAME
    /// chain, then the host itself; never a name between them.
    async fn base_domains(
        &self,
        host: &Domain,
        addresses: &Answer<IpAddr>,
    ) -> Result<Vec<Domain>, TlsaAnswer> {
        let is_alias = addresses.name != *host;
        match (addresses.status, is_alias) {
            (DnssecStatus::Secure, false) => return Ok(vec![host.clone()]),
            (DnssecStatus::Secure, true) => return Ok(vec![addresses.name.clone(), host.clone()]),
            (_, false) => return Ok(Vec::new()),
            (_, true) => {}
        }
        // RFC 7672 §2.2.2: an alias in a signed zone counts, wherever it leads.
        let known = self.aliases.ask(host, || self.dns.cname(host)).await;
        let status = match &known.lookup {
            Lookup::Found(answer) => answer.status,
            Lookup::NoData(_) | Lookup::NxDomain(_) => DnssecStatus::Insecure,
            // RFC 7672 §2.1.3: an error in the chain is an error of the whole lookup.
            Lookup::Failed(failure) => return Err(TlsaAnswer::Failed(failure.to_string())),
        };
        check_status(|| host.to_string(), "CNAME", status)
            .map_err(|failure| TlsaAnswer::Failed(failure.to_string()))?;
        Ok(if status == DnssecStatus::Secure { vec![host.clone()] } else { Vec::new() })
    }

    async fn tlsa_at(&self, base: &Domain, port: u16, heed: Heed) -> TlsaAnswer {
        // RFC 7672 §2.2.3: at the port that is really connected to.
        let Some(owner) = dane::tlsa_name(base, port) else { return TlsaAnswer::Absent };
        let known = match heed {
            Heed::DaneAfresh => {
                // Answers of their own: a young one among the others may come from a cache below.
                self.tlsas_afresh.renew(&owner, RECHECK_WAIT);
                let known = self.tlsas_afresh.ask(&owner, || self.dns.tlsa_fresh(&owner)).await;
                self.tlsas.forget(&owner);
                known
            }
            Heed::Dane | Heed::Nothing => self.tlsas.ask(&owner, || self.dns.tlsa(&owner)).await,
        };
        let status = match &known.lookup {
            Lookup::Found(answer) => answer.status,
            // RFC 7672 §2.1.1: a denial is an answer, whether or not it is signed.
            Lookup::NoData(status) | Lookup::NxDomain(status) => *status,
            Lookup::Failed(failure) => return TlsaAnswer::Failed(failure.to_string()),
        };
        if let Err(failure) = check_status(|| owner.to_string(), "TLSA", status) {
            return TlsaAnswer::Failed(failure.to_string());
        }
        match &known.lookup {
            Lookup::Found(answer) if status == DnssecStatus::Secure => {
                TlsaAnswer::Secure(answer.records.clone())
            }
            Lookup::Found(_) => TlsaAnswer::Insecure,
            _ => TlsaAnswer::Absent,
        }
    }
}
