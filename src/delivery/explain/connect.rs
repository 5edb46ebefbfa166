//! Goes with a host as far as MAIL would be said, as an attempt does, and says QUIT instead.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::facts::{ReportFacts, TlsShown, Trouble, Try};
use super::{Asking, Explained, Explainer};
use crate::delivery::attempt::ADDRESSES_MAX;
use crate::delivery::conversation::{Conversation, Manner, TlsSeen};
use crate::delivery::judge;
use crate::delivery::tally::{self, Ends};
use crate::mail::{Domain, Failure};
use crate::net::tls::TlsFacts;
use crate::smtp::client::{SessionEnd, Timeouts, TlsUse};
use crate::tlspolicy::{Requirement, TlsPlan};

/// Somebody waits for the answer: no step of a connection takes longer, whatever mail would wait.
const STEP_WITHIN: Duration = Duration::from_secs(30);
/// All connections to one host together.
const HOST_WITHIN: Duration = Duration::from_secs(90);

impl Explainer {
    /// The walk over a host's addresses, as an attempt does it, up to where MAIL would be said.
    pub(super) async fn connect(
        &self,
        explained: &mut Explained,
        name: &str,
        plan: &TlsPlan,
        report_domain: Option<&Domain>,
        asking: &Asking<'_>,
    ) {
        let deadline = Instant::now() + HOST_WITHIN;
        let wanted = asking.hop.tls_use(plan);
        if explained.host.address_trouble.is_none() {
            explained.failures.clear();
        }
        let ips: Vec<IpAddr> = explained.host.addresses.iter().take(ADDRESSES_MAX).map(|a| a.ip).collect();
        for ip in ips {
            let address = SocketAddr::new(ip, asking.hop.port);
            let mut tls_use = wanted;
            loop {
                let tried = self.try_once(name, plan, report_domain, address, tls_use, asking);
                let Ok((tried, failed)) = timeout_at(deadline, tried).await else {
                    let text = format!(
                        "connection to {address} given up: looking at {name} takes more than {} s",
                        HOST_WITHIN.as_secs()
                    );
                    let failure = judge::dial_failure(&text, name);
                    explained
                        .host
                        .tries
                        .push(Try { trouble: Some(Trouble::from(&failure)), ..empty_try(address, tls_use) });
                    explained.failures.push(failure);
                    return;
                };
                explained.host.tries.push(tried);
                match failed {
                    None => {
                        explained.failures.clear();
                        return;
                    }
                    Some((failure, by_tls)) => {
                        explained.failures.push(failure);
                        if !(by_tls && tls_use == TlsUse::IfOffered) {
                            break;
                        }
                        // RFC 7435: opportunistic, so in clear rather than not at all.
                        tls_use = TlsUse::Never;
                    }
                }
            }
        }
    }

    /// One connection; the failure, and whether TLS was its cause, when mail could not go.
    async fn try_once(
        &self,
        name: &str,
        plan: &TlsPlan,
        report_domain: Option<&Domain>,
        address: SocketAddr,
        tls_use: TlsUse,
        asking: &Asking<'_>,
    ) -> (Try, Option<(Failure, bool)>) {
        let Asking { hop, options, .. } = *asking;
        let timeouts = short(&options.timeouts);
        let mut tried = empty_try(address, tls_use);
        let connection = match self.world.dial.dial(address, name, timeouts.connect).await {
            Ok(connection) => connection,
            Err(error) => {
                let text = format!("connection to {address} failed: {error}");
                let failure = judge::dial_failure(&text, name);
                tried.trouble = Some(Trouble::from(&failure));
                return (tried, Some((failure, false)));
            }
        };
        let (conversation, opened) = Conversation::open(
            connection,
            // What the host shows now, not what it showed some time ago.
            self.world.tls.resuming(Duration::ZERO),
            plan,
            &Manner { tls: tls_use, credentials: hop.credentials(), ehlo_name: &options.hostname },
            timeouts,
        )
        .await;
        tried.host_says = conversation.server_name().map(str::to_owned);
        if let TlsSeen::Established(facts) = &conversation.seen {
            tried.tls = Some(TlsShown { tlsa_matches: tlsa_matches(facts, plan), ..facts.into() });
            tried.offers_requiretls = opened.is_ok().then(|| conversation.offers_requiretls());
        }
        if let Some(domain) = report_domain {
            let ends = Ends {
                local: conversation.local,
                remote: Some(conversation.remote.ip()),
                helo: tried.host_says.clone(),
            };
            tried.tls_rpt =
                ReportFacts::of_results(&tally::of_session(domain, plan, &conversation.seen, &ends));
        }
        let end = match opened {
            // I4: asked before every message.
            Ok(()) if conversation.meets(plan) => None,
            Ok(()) => Some(conversation.end()),
            Err(end) => Some(end),
        };
        let by_tls =
            matches!(end, Some(SessionEnd::Tls(_))) || matches!(conversation.seen, TlsSeen::Failed(_));
        conversation.quit().await;
        let failure =
            end.map(|end| (hop.failing(judge::session_failure(&end, name, plan.demands())), by_tls));
        tried.trouble = failure.as_ref().map(|(failure, _)| Trouble::from(failure));
        (tried, failure)
    }
}

/// What DANE alone says of a session.
fn tlsa_matches(facts: &TlsFacts, plan: &TlsPlan) -> Option<bool> {
    let (Requirement::Dane { records, names } | Requirement::DaneAndPkix { records, names, .. }) =
        &plan.require
    else {
        return None;
    };
    let dane = Requirement::Dane { records: records.clone(), names: names.clone() };
    Some(facts.verify(&dane).is_ok())
}

pub(super) fn empty_try(address: SocketAddr, tls_use: TlsUse) -> Try {
    Try {
        address,
        in_clear: tls_use == TlsUse::Never,
        host_says: None,
        tls: None,
        offers_requiretls: None,
        trouble: None,
        tls_rpt: Vec::new(),
    }
}

fn short(timeouts: &Timeouts) -> Timeouts {
    Timeouts {
        connect: timeouts.connect.min(STEP_WITHIN),
        greeting: timeouts.greeting.min(STEP_WITHIN),
        command: timeouts.command.min(STEP_WITHIN),
        ..timeouts.clone()
    }
}
