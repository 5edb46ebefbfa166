//! A look at the MX hosts of a domain, up to where MAIL would be said: is there TLS, and for whom is the
//! certificate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::delivery::conversation::{Conversation, Manner, TlsSeen};
use crate::mail::Domain;
use crate::net::dns::{Dns, Lookup};
use crate::net::tcp::Dial;
use crate::net::tls::ClientTls;
use crate::route::DnssecStatus;
use crate::smtp::client::{SessionEnd, Timeouts, TlsUse};
use crate::sts::check::{HostLook, HostShowed};
use crate::tlspolicy::{Requirement, Rule, TlsPlan};

/// All of one host; somebody waits.
const HOST_WITHIN: Duration = Duration::from_secs(30);
/// Hosts looked at; what a sane domain has.
const HOSTS_MAX: usize = 10;

/// What looking needs.
pub(super) struct Doors<'a> {
    pub(super) dns: &'a dyn Dns,
    pub(super) dialer: &'a dyn Dial,
    pub(super) tls: Arc<ClientTls>,
    /// Ours, for EHLO.
    pub(super) hostname: Domain,
    pub(super) port: u16,
}

/// Looks at the hosts of an MX answer, all at once.
pub(super) async fn look(doors: &Doors<'_>, hosts: Vec<Domain>) -> Vec<HostLook> {
    let looks = hosts.into_iter().take(HOSTS_MAX).map(|host| async move {
        let showed = timeout(HOST_WITHIN, look_at(doors, &host)).await.unwrap_or_else(|_| {
            HostShowed::Unreachable(format!("no end of it within {} s", HOST_WITHIN.as_secs()))
        });
        HostLook { host, showed }
    });
    join_all(looks).await
}

async fn look_at(doors: &Doors<'_>, host: &Domain) -> HostShowed {
    let addresses = match doors.dns.addresses(host).await {
        Lookup::Found(answer) => answer.records,
        Lookup::NoData(_) | Lookup::NxDomain(_) => {
            return HostShowed::Unreachable("it has no address".to_owned());
        }
        Lookup::Failed(failure) => return HostShowed::Unreachable(failure.to_string()),
    };
    let mut trouble = "it has no address".to_owned();
    for ip in addresses {
        let address = SocketAddr::new(ip, doors.port);
        match doors.dialer.dial(address, host.as_str(), HOST_WITHIN).await {
            Err(error) => trouble = format!("connection to {address} failed: {error}"),
            Ok(connection) => {
                let plan = TlsPlan {
                    require: Requirement::Encrypt,
                    name: host.clone(),
                    sni: host.clone(),
                    mx_status: DnssecStatus::Insecure,
                    report_on: Vec::new(),
                    rule: Rule::Opportunistic,
                    local_text: None,
                };
                let manner = Manner { tls: TlsUse::Required, credentials: None, ehlo_name: &doors.hostname };
                let tls = Arc::clone(&doors.tls);
                let (conversation, opened) =
                    Conversation::open(connection, tls, &plan, &manner, Timeouts::default()).await;
                let seen = conversation.seen.clone();
                conversation.quit().await;
                return match (seen, opened) {
                    (TlsSeen::Established(facts), _) => match facts.pkix {
                        Ok(()) => HostShowed::Good,
                        Err(failure) => HostShowed::BadCertificate(failure.to_string()),
                    },
                    (TlsSeen::Clear(failure) | TlsSeen::Failed(failure), _) => {
                        HostShowed::NoTls(failure.to_string())
                    }
                    (TlsSeen::NotReached, Err(SessionEnd::Refused { reply, .. })) => {
                        HostShowed::Unreachable(format!("it says {reply}"))
                    }
                    (TlsSeen::NotReached, _) => HostShowed::Unreachable("the session broke off".to_owned()),
                };
            }
        }
    }
    HostShowed::Unreachable(trouble)
}
