//! Explains mail to an address: an address literal, or the address that a static route names.
//!
//! Asks nothing of DNS: an address has no policy domain (RFC 8461 §3.4). Called by [`super::Explainer`].

use std::net::IpAddr;

use jiff::Timestamp;

use super::conclude::conclude;
use super::facts::{Explanation, RouteFacts, Trouble, VerdictFacts};
use super::{Asking, Explained, Explainer, local_facts};
use crate::delivery::gather::NextHop;
use crate::delivery::{judge, known};
use crate::mail::{Destination, TlsRequest};
use crate::tlspolicy::{self, AddressFacts, Course, Verdict};

impl Explainer {
    /// RFC 5321 §4.1.3, RFC 8461 §3.4: connected to directly, without policy.
    pub(super) async fn explain_address(&self, asking: &Asking<'_>) -> Explanation {
        let Asking { destination, hop, connect, options } = *asking;
        let now = self.world.clock.now();
        let course = known::course(destination, hop, None);
        let (failure, explained) = match self.gather.route(hop).await {
            Ok(NextHop::Literal(ip)) => (None, vec![self.explain_ip(ip, &course, now, asking).await]),
            Ok(NextHop::Route(_)) => (None, Vec::new()),
            Err(failure) => (Some(failure), Vec::new()),
        };
        Explanation {
            at: now,
            conclusion: conclude(failure.as_ref(), &explained, connect),
            destination: destination.clone(),
            pause: None,
            // RFC 7672 §2.2: an address has no TLSA records.
            validator: None,
            route: RouteFacts::of(hop),
            mx: None,
            implicit_mx: false,
            route_trouble: failure.as_ref().map(Trouble::from),
            record: None,
            policy: None,
            local: local_facts(&options.overrides, &course, now),
            hosts: explained.into_iter().map(|explained| explained.host).collect(),
            connected: connect,
        }
    }

    async fn explain_ip(
        &self,
        ip: IpAddr,
        course: &Course<'_>,
        now: Timestamp,
        asking: &Asking<'_>,
    ) -> Explained {
        let Asking { hop, connect, options, .. } = *asking;
        let name = Destination::Literal(ip).to_string();
        let local = tlspolicy::local_rule_on(&options.overrides, course, now);
        let text = local.map(ToString::to_string);
        let facts = AddressFacts {
            literal: &name,
            own_name: &options.hostname,
            request: TlsRequest::None,
            local: local.map(|rule| rule.require).unwrap_or_default(),
            local_text: text.as_deref(),
        };
        let required = AddressFacts { request: TlsRequest::Required, ..facts };
        let required = VerdictFacts::of(&tlspolicy::decide_address(&required));
        let mut explained = match tlspolicy::decide_address(&facts) {
            Verdict::Use(plan) => {
                let mut explained = self.host(&name, 0, VerdictFacts::of_plan(&plan), Ok(vec![ip]), hop.port);
                if connect {
                    self.connect(&mut explained, &name, &plan, None, asking).await;
                }
                explained
            }
            Verdict::Skip(reason) => {
                let mut explained =
                    self.host(&name, 0, VerdictFacts::of_skip(&reason), Ok(vec![ip]), hop.port);
                explained.failures = vec![judge::skip_failure(&reason, &name)];
                explained
            }
        };
        explained.host.requiretls = Some(required);
        explained
    }
}
