//! Looks at DNSSEC validation: asks about a name known to be signed, past any cache.
//!
//! What was seen is judged by `validation`.

use std::cell::RefCell;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};

use super::super::reply::Trust;
use super::super::upstream::TROUBLE;
use super::super::validation::{self, Seen, Shown, Validation};
use super::{Checking, HickoryDns, request};
use crate::route::DnssecStatus;

/// Servers that are asked; more are not usual.
const SERVERS_PROBED_MAX: usize = 4;

impl HickoryDns {
    /// How validation does now.
    pub(super) async fn look(&self) -> Validation {
        match (&self.distrust, &self.probe) {
            (Some(why), _) => Validation::Off(why.clone()),
            (None, None) => Validation::Off("dns.dnssec_probe is empty: nobody looks".to_owned()),
            (None, Some(probe)) if self.trust == Trust::Proofs => self.look_at_ourselves(probe).await,
            (None, Some(probe)) => self.look_at_resolvers(probe).await,
        }
    }

    /// What the resolvers show of the probe, each by itself.
    async fn look_at_resolvers(&self, probe: &Name) -> Validation {
        let mut shown = Vec::new();
        for server in self.upstream.servers().iter().take(SERVERS_PROBED_MAX) {
            let see = async |checking| {
                let request = request(probe, RecordType::SOA, self.trust, checking);
                match self.upstream.ask_one(*server, request).await {
                    Ok(response) => match response.response_code {
                        ResponseCode::NoError | ResponseCode::NXDomain
                            if response.metadata.authentic_data =>
                        {
                            Seen::Secure
                        }
                        ResponseCode::NoError | ResponseCode::NXDomain => Seen::Insecure,
                        code => Seen::Refused(code.to_string()),
                    },
                    Err(error) => Seen::Silent(error.to_string()),
                }
            };
            let checked = see(Checking::Enabled).await;
            let unchecked = match &checked {
                Seen::Refused(_) => Some(see(Checking::Disabled).await),
                Seen::Secure | Seen::Insecure | Seen::Silent(_) => None,
            };
            shown.push(Shown { server: server.to_string(), checked, unchecked });
        }
        validation::of_resolver(&quoted(probe), &shown, &self.recent.domains())
    }

    /// What our own validation makes of the probe.
    async fn look_at_ourselves(&self, probe: &Name) -> Validation {
        let noted = TROUBLE.scope(RefCell::default(), async {
            let step = self.step(probe, RecordType::SOA).await;
            (step, TROUBLE.with(RefCell::take))
        });
        let (step, trouble) = noted.await;
        let seen = match step {
            Ok(step) if step.status == DnssecStatus::Secure => Seen::Secure,
            Ok(_) => Seen::Insecure,
            Err(failure) if failure.bogus => Seen::Refused(trouble.clone().unwrap_or(failure.text)),
            Err(failure) => Seen::Silent(failure.text),
        };
        validation::of_ourselves(&quoted(probe), &seen, trouble.is_none(), &self.recent.domains())
    }
}

/// The name of `dns.dnssec_probe`.
pub(super) fn probe_name(text: &str) -> Result<Option<Name>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut name = Name::from_ascii(text)
        .map_err(|error| format!("dns.dnssec_probe \"{text}\" is not a name in DNS: {error}"))?;
    name.set_fqdn(true);
    Ok(Some(name))
}

fn quoted(name: &Name) -> String {
    format!("\"{name}\"")
}
