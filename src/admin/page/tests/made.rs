//! Made-up answers.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::json;

use crate::admin::history::{Column, Counts, Range};
use crate::admin::page::facts::Facts;
use crate::admin::protocol::changes::ChangesAnswer;
use crate::admin::protocol::evidence::EvidenceAnswer;
use crate::admin::protocol::reports::{ReportsAnswer, ReportsRequest, TargetLine, TodayLine};
use crate::admin::protocol::{
    AgeTotal, Answer, DestinationTotal, EntryRecipient, EntryState, FrozenTotal, QueueAction, QueueEntry,
    QueueTotals, Request, TlsAsk,
};
use crate::delivery::HostStanding;
use crate::delivery::explain::facts::Explanation;
use crate::mail::{Destination, Domain, Mailbox};
use crate::metrics::Totals;
use crate::queue::AttemptRecord;
use crate::queue::evidence::{
    Evidence, HostEvidence, HostVerdict, MessageEvidence, OutcomeWord, PolicyEvidence, RecipientEvidence,
    RefusalEvidence, TlsEvidence, TlsaEvidence,
};
use crate::store::suppressions::{Suppressed, SuppressedBy};
use crate::store::targets::Standing;
use crate::store::{ReportEntry, RuaState, RuaStatus};
use crate::sts::freshness::{FetchTrouble, HeldPolicy, TroubleKind};
use crate::sts::radar::{Change, Noticed};
use crate::sts::{CachedPolicy, StsPolicy};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nothing,
    Plenty,
    Hostile,
    Troubled,
}

/// Answers of a kind; remembers what was asked.
pub(super) struct Made {
    kind: Kind,
    asked: Mutex<Vec<Request>>,
}

fn now() -> Timestamp {
    at("2026-01-10T12:00:00Z")
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

impl Made {
    fn of(kind: Kind) -> Self {
        Self { kind, asked: Mutex::default() }
    }

    /// A relay that has just been installed.
    pub(super) fn nothing() -> Self {
        Self::of(Kind::Nothing)
    }

    /// One that has seen everything.
    pub(super) fn plenty() -> Self {
        Self::of(Kind::Plenty)
    }

    /// The same, and whoever could say something said the worst.
    pub(super) fn hostile() -> Self {
        Self::of(Kind::Hostile)
    }

    /// One whose store answers nothing.
    pub(super) fn troubled() -> Self {
        Self::of(Kind::Troubled)
    }

    pub(super) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    /// What was done to the queue, and whether it was only counted.
    pub(super) fn acts(&self) -> Vec<(QueueAction, bool)> {
        let act = |request: Request| match request {
            Request::QueueAct { action, dry_run, .. } => Some((action, dry_run)),
            _ => None,
        };
        self.asked().into_iter().filter_map(act).collect()
    }

    fn is_nothing(&self) -> bool {
        self.kind == Kind::Nothing
    }

    /// Somebody else's words.
    fn words(&self, sane: &str) -> String {
        match self.kind {
            Kind::Hostile => {
                let attack = "\"><script>alert('x')</script><!--\u{202e}\u{0}\r\n<b onmouseover=x>&amp;";
                format!("{attack}{}", "No. ".repeat(2500))
            }
            _ => sane.to_owned(),
        }
    }

    fn totals(&self) -> QueueTotals {
        let many = u64::from(!self.is_nothing());
        let ages = [Some(3600), Some(14_400), Some(86_400), Some(172_800), None];
        QueueTotals {
            active: 3 * many,
            deferred: 12_345 * many,
            held: many,
            bytes: 56_000_000 * many,
            oldest: (!self.is_nothing()).then(|| at("2026-01-07T12:00:00Z")),
            destinations: (0..many * 12)
                .map(|n| DestinationTotal {
                    destination: format!("d{n}.example"),
                    items: 1000 >> n,
                    active: 0,
                    deferred: 1000 >> n,
                    held: 0,
                    oldest: at("2026-01-07T12:00:00Z"),
                })
                .collect(),
            ages: ages
                .into_iter()
                .enumerate()
                .map(|(n, below)| AgeTotal { below, items: many * n as u64 * 7 })
                .collect(),
            destination_count: 12 * many,
            frozen: (0..many)
                .map(|_| FrozenTotal {
                    destination: "example.net".into(),
                    items: 5,
                    since: at("2026-01-10T11:00:00Z"),
                    until: Some(at("2026-01-10T13:00:00Z")),
                    reason: Some(self.words("moving house")),
                })
                .collect(),
            health: self.words("fine"),
            dnssec: Some(self.words("works")),
        }
    }

    fn entries(&self) -> Vec<QueueEntry> {
        let states = [EntryState::Active, EntryState::Deferred, EntryState::Held];
        let entry = |n: usize| QueueEntry {
            id: format!("1-0000000{}.0", n + 1).parse().unwrap(),
            state: states[n % 3],
            sender: if n == 2 { String::new() } else { self.words("a@b.example") },
            destination: "example.net".into(),
            recipients: ["pending", "delivered", "failed"]
                .into_iter()
                .map(|state| EntryRecipient {
                    address: self.words("user@example.net"),
                    state: state.into(),
                    last: Some(self.words("451 4.3.0 mx.example.net does not offer STARTTLS")),
                })
                .collect(),
            received_at: at("2026-01-10T09:00:00Z"),
            size: 12_345,
            attempts: 3,
            next_attempt: (n != 2).then(|| at("2026-01-10T12:20:00Z")),
            waits: (n == 1).then(|| self.words("host mx.example.net is not tried until later")),
            is_report: n == 2,
            asks: (n == 0).then_some(TlsAsk::Requiretls),
            frozen: n == 1,
            history: vec![AttemptRecord {
                at: at("2026-01-10T11:50:00Z"),
                host: Some(self.words("mx.example.net")),
                address: "192.0.2.1".parse().ok(),
                tls: Some("TLSv1.3 TLS13_AES_256_GCM_SHA384".into()),
                verified: None,
                rule: "mta-sts enforce".into(),
                result: self.words("deferred: 451 4.3.0 later"),
            }],
        };
        if self.is_nothing() { Vec::new() } else { (0..3).map(entry).collect() }
    }

    fn attempts(&self) -> Vec<Evidence> {
        let hash = "ab".repeat(32);
        let hosts = [HostVerdict::Met, HostVerdict::Allowed, HostVerdict::Failed, HostVerdict::Skipped];
        let host = |verdict| HostEvidence {
            mx: Some(self.words("mx.example.net")),
            mx_dnssec: Some("secure".into()),
            address: "2001:db8::1".parse().ok(),
            local_address: "2001:db8::2".parse().ok(),
            helo: Some(self.words("mx.example.net")),
            route: Some("*.example.net to [smart.example.org]:587".into()),
            policy: Some(PolicyEvidence {
                id: Some(self.words("20260101T000000")),
                mode: "enforce".into(),
                sha256: hash.clone(),
                fetched_at: Some(now()),
                max_age: 604_800,
            }),
            tlsa: Some(TlsaEvidence {
                status: "secure".into(),
                base: "mx.example.net".into(),
                records: vec![format!("3 1 1 {hash}")],
                matched: Some(format!("3 1 1 {hash}")),
            }),
            rule: "dane and mta-sts enforce".into(),
            requirement: Some("dane and pkix".into()),
            names: vec!["mx.example.net".into()],
            tls: Some(TlsEvidence {
                version: "TLSv1.3".into(),
                cipher: "TLS13_AES_256_GCM_SHA384".into(),
                group: Some("X25519MLKEM768".into()),
                chain_sha256: hash.clone(),
                spki_sha256: Some(hash.clone()),
                not_after: Some(now()),
                issuer: Some(self.words("Example CA")),
                pkix: "valid".into(),
                resumed: true,
                name_matched: Some("*.example.net".into()),
            }),
            verdict,
            reason: Some(self.words("it did not answer")),
        };
        let recipient = |outcome| RecipientEvidence {
            to: Some(self.words("user@example.net")),
            outcome,
            status: None,
            code: Some(250),
            text: self.words("250 2.0.0 queued as ABCDEF"),
            host: Some(0),
        };
        if self.is_nothing() {
            return Vec::new();
        }
        vec![Evidence {
            at: now(),
            item: "1-00000001.0".parse().unwrap(),
            message: MessageEvidence {
                attempt: 2,
                message_id: Some(self.words("known@sender.example")),
                sender: Some(self.words("a@b.example")),
                destination: "example.net".into(),
                recipients: [OutcomeWord::Delivered, OutcomeWord::Deferred, OutcomeWord::Failed]
                    .into_iter()
                    .map(recipient)
                    .collect(),
                refusals: vec![RefusalEvidence {
                    host: 1,
                    recipients: 2,
                    text: self.words("450 4.2.0 later"),
                }],
                carried_before: Some(3),
            },
            hosts: hosts.into_iter().map(host).collect(),
        }]
    }

    fn policy(&self) -> CachedPolicy {
        let text = b"version: STSv1\r\nmode: enforce\r\nmx: mx.example.net\r\nmx: *.example.net\r\nmax_age: 604800\r\n";
        CachedPolicy {
            domain: domain("example.net"),
            held: Some(HeldPolicy {
                policy: StsPolicy::parse(text).unwrap(),
                id: "20260101".into(),
                fetched_at: at("2026-01-09T12:00:00Z"),
                refresh_at: at("2026-01-10T13:00:00Z"),
            }),
            trouble: Some(FetchTrouble {
                id: None,
                at: at("2026-01-10T11:00:00Z"),
                count: 2,
                kind: TroubleKind::Fetch,
                text: self.words("the policy host answered 404"),
            }),
        }
    }

    fn report(&self) -> ReportEntry {
        let json = json!({
            "organization-name": "Example", "report-id": "x",
            "policies": [{
                "policy": {"policy-type": "sts", "policy-domain": "example.net",
                    "policy-string": ["version: STSv1", self.words("mode: enforce")], "mx-host": ["mx.example.net"]},
                "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 2},
                "failure-details": [{"result-type": "certificate-expired", "receiving-ip": "192.0.2.1",
                    "receiving-mx-hostname": self.words("mx.example.net"), "failed-session-count": 2,
                    "failure-reason-code": self.words("expired yesterday")}],
            }],
        });
        let statuses = [
            RuaStatus::Waiting(at("2026-01-10T13:00:00Z")),
            RuaStatus::Waiting(at("2026-01-10T11:00:00Z")),
            RuaStatus::Queued("1-00000005".parse().unwrap()),
            RuaStatus::Accepted,
            RuaStatus::GivenUp,
            RuaStatus::Withheld,
        ];
        let target = |status| RuaState {
            rua: self.words("mailto:tls@example.net"),
            status,
            attempts: 1,
            last: Some(self.words("it answered 503")),
        };
        ReportEntry {
            day: "2026-01-09".parse().unwrap(),
            domain: domain("example.net"),
            report_id: "2026-01-09.x@example.org".into(),
            started_at: now(),
            targets: statuses.into_iter().map(target).collect(),
            note: Some(self.words("the record is gone")),
            json: json.to_string(),
        }
    }

    fn reports(&self, asked: &ReportsRequest) -> Answer {
        let none = self.is_nothing();
        Answer::Reports(match asked {
            ReportsRequest::Preview { .. } | ReportsRequest::Show { .. } if none => {
                return Answer::Nothing { text: "no report to example.net was made".into() };
            }
            ReportsRequest::Preview { .. } => ReportsAnswer::Text { json: self.report().json },
            ReportsRequest::Today { .. } => ReportsAnswer::Today {
                domains: (0..if none { 0 } else { 30 })
                    .map(|n| TodayLine {
                        domain: domain(&format!("d{n}.example")),
                        sessions: n,
                        failed: n / 9,
                    })
                    .collect(),
                more: !none,
            },
            ReportsRequest::Targets { .. } => ReportsAnswer::Targets {
                targets: (0..if none { 0 } else { 2 })
                    .map(|n| TargetLine {
                        standing: Standing {
                            target: self.words("https://reports.example.net/tls"),
                            failures: 3,
                            first_at: at("2026-01-05T12:00:00Z"),
                            last_at: at("2026-01-09T12:00:00Z"),
                            reason: self.words("it answered 404"),
                        },
                        suppressed_until: (n == 0).then(|| at("2026-01-19T12:00:00Z")),
                    })
                    .collect(),
                more: !none,
            },
            _ => ReportsAnswer::Page {
                entries: (0..if none { 0 } else { 60 }).map(|_| self.report()).collect(),
                mails: Vec::new(),
                more: !none,
            },
        })
    }

    fn noticed(&self) -> Vec<Noticed> {
        let changes = [
            Change::MxInsecure,
            Change::RecordVanished { why: self.words("no such record") },
            Change::IdWithoutText { from: "1".into(), to: "2".into() },
        ];
        let noticed = |(n, change): (usize, Change)| Noticed {
            number: 9 - n as u64,
            at: at("2026-01-10T10:00:00Z"),
            domain: domain("example.net"),
            severity: change.severity(),
            change,
        };
        if self.is_nothing() { Vec::new() } else { changes.into_iter().enumerate().map(noticed).collect() }
    }

    fn explanation(&self) -> Explanation {
        let trouble =
            json!({"status": "4.7.5", "text": self.words("the TLSA lookup failed"), "permanent": false});
        let asked = json!({"answer": "found", "dnssec": "secure", "records": [self.words("10 mx.example.net")], "ttl": 300, "trouble": null});
        let report = json!({"policy_type": "sts", "policy_domain": "example.net", "expects": null,
            "failures": [{"result_type": "certificate-expired", "reason": self.words("expired")}]});
        let verdict = json!({"usable": true, "rule": "sts-enforce", "require": "pkix", "text": self.words("TLS with a trusted certificate")});
        let local = json!({"rule": "encrypt", "whom": "*.example.net", "until": "2026-02-01T00:00:00Z", "reason": self.words("ticket 4711")});
        serde_json::from_value(json!({
            "at": "2026-01-10T12:00:00Z",
            "destination": "example.net",
            "conclusion": {"mail": "waits", "text": self.words("no host may be used")},
            "pause": {"until": "2026-01-10T12:30:00Z", "text": self.words("its hosts are left alone")},
            "validator": self.words("broken: nobody answers"),
            "route": null,
            "mx": asked,
            "implicit_mx": true,
            "route_trouble": trouble,
            "record": {"answer": "found", "dnssec": "insecure", "records": [self.words("v=STSv1; id=1;")], "ttl": 300, "trouble": null, "id": "1", "unusable": null},
            "policy": {"switched_off": false,
                "applies": {"mode": "enforce", "id": "1", "mx": ["mx.example.net"], "max_age": 86400},
                "held": null,
                "fetch_trouble": {"at": "2026-01-10T11:00:00Z", "count": 2, "result_type": "sts-policy-fetch-error", "text": self.words("404")},
                "unknown": null},
            "local": local,
            "hosts": [{
                "host": "mx.example.net", "preference": 10, "listed": false,
                "addresses": [{"ip": "192.0.2.1", "refused": "not globally routable"}],
                "address_trouble": null,
                "tlsa": {"answer": "secure", "records": [{"text": "3 1 1 ab", "usable": true}, {"text": "1 1 1 ab", "usable": false}], "trouble": null},
                "local": local, "verdict": verdict, "requiretls": null, "out_of_reach": true,
                "tls_rpt": [report],
                "tries": [{"address": "192.0.2.1:25", "in_clear": true, "host_says": self.words("mx"),
                    "tls": {"version": "TLSv1.3", "cipher": "X", "certificate_trouble": self.words("it expired"), "tlsa_matches": false, "chain_sha256": "ab"},
                    "offers_requiretls": false, "trouble": trouble, "tls_rpt": [report]}],
            }, {
                "host": "mx2.example.net", "preference": 20, "listed": true, "addresses": [], "address_trouble": trouble,
                "tlsa": null, "local": null,
                "verdict": {"usable": false, "rule": "dane", "require": null, "text": "skipped"},
                "requiretls": null, "out_of_reach": false, "tls_rpt": [report], "tries": [],
            }],
            "connected": true,
        }))
        .unwrap()
    }

    fn suppressed(&self) -> Vec<Suppressed> {
        let one = |n: usize| Suppressed {
            address: Mailbox::parse(&format!("user{n}@example.net")).unwrap(),
            by: if n == 0 { SuppressedBy::Operator } else { SuppressedBy::Bounces },
            bounces: 2,
            first_at: at("2026-01-05T12:00:00Z"),
            last_at: at("2026-01-09T12:00:00Z"),
            since: (n < 2).then(|| at("2026-01-05T12:00:00Z")),
            until: at("2026-02-09T12:00:00Z"),
            reason: self.words("550 5.1.1 no such user"),
        };
        if self.is_nothing() { Vec::new() } else { (0..60).map(one).collect() }
    }

    fn answer(&self, request: &Request) -> Answer {
        if self.kind == Kind::Troubled {
            return Answer::Failed { text: "the disk is on fire".into() };
        }
        let nothing = |text: &str| Answer::Nothing { text: text.into() };
        match request {
            Request::QueueList { .. } => Answer::QueuePage {
                entries: self.entries(),
                cursor: (!self.is_nothing()).then(|| "1-00000003.0".parse().unwrap()),
            },
            Request::QueueStats { .. } => Answer::QueueTotals(Box::new(self.totals())),
            Request::QueueAct { filter, .. } => Answer::Acted {
                count: if filter.item.is_some() { 1 } else { 3 },
                left: 0,
                cursor: None,
                trouble: None,
            },
            Request::PolicyShow { .. } if self.is_nothing() => nothing("no policy is cached"),
            Request::PolicyShow { .. } => {
                Answer::Policies { entries: vec![self.policy()], more: false, local: None }
            }
            Request::PolicyRefresh { .. } => {
                Answer::Refreshed { record: Ok("1".into()), fetch: Some(Ok("enforce".into())), entry: None }
            }
            Request::Reports(asked) => self.reports(asked),
            Request::Evidence(asked) => {
                let known = asked.filter.message_id.as_deref().is_none_or(|id| id == "known@sender.example");
                let attempts = if known { self.attempts() } else { Vec::new() };
                Answer::Evidence(EvidenceAnswer { attempts, cursor: None })
            }
            Request::Changes(_) => {
                Answer::Changes(ChangesAnswer { changes: self.noticed(), more: !self.is_nothing() })
            }
            Request::SuppressionList { .. } | Request::SuppressionShow { .. } => {
                Answer::Suppressions { entries: self.suppressed(), more: false }
            }
            Request::Explain { .. } => Answer::Explained(Box::new(self.explanation())),
            Request::QueueFreeze { .. }
            | Request::QueueThaw { .. }
            | Request::PolicyForget { .. }
            | Request::SuppressionRemove { .. } => Answer::Changed { count: 1 },
            _ => nothing("no such thing"),
        }
    }
}

impl Facts for Arc<Made> {
    fn ask(&self, request: Request) -> BoxFuture<'static, Answer> {
        let answer = self.answer(&request);
        self.asked.lock().unwrap().push(request);
        Box::pin(std::future::ready(answer))
    }

    fn now(&self) -> Timestamp {
        now()
    }

    fn columns(&self, range: Range) -> Vec<Column> {
        let (width, count) = range.columns();
        let many = !self.is_nothing();
        let column = |n: usize| {
            let n = n as u64;
            let totals = Totals {
                accepted: n % 17 * 9,
                delivered: n % 13 * 10,
                deferred: n % 5,
                failed: 0,
                protection: [n; 6],
            };
            Column {
                from: Timestamp::from_second(now().as_second() - width * (count as i64 - n as i64)).unwrap(),
                counts: (many && n > 9).then(|| Counts::from(totals)),
            }
        };
        (0..count).map(column).collect()
    }

    fn hosts(&self, max: usize) -> Vec<HostStanding> {
        let host = |n: u8| HostStanding {
            name: self.words("mx.example.net"),
            address: ([192, 0, 2, n], 25).into(),
            failures: u32::from(n) + 1,
            until: at(if n == 0 { "2026-01-10T11:00:00Z" } else { "2026-01-10T12:10:00Z" }),
            cause: self.words("it refused the connection"),
        };
        (0..if self.is_nothing() { 0 } else { 9 }).map(host).take(max).collect()
    }

    fn waits(&self, destination: &Destination) -> Option<String> {
        let waits = !self.is_nothing() && destination.to_string().ends_with("example.net");
        waits.then(|| {
            self.words("host mx.example.net is not tried until 12:10 because it refused the connection")
        })
    }

    fn certificate_ends(&self) -> Option<Timestamp> {
        (!self.is_nothing()).then(|| at("2026-01-20T12:00:00Z"))
    }

    fn policies(&self, find: &str, after: Option<&str>, max: usize) -> Vec<Arc<CachedPolicy>> {
        if self.is_nothing() {
            return Vec::new();
        }
        let names = ["example.net".to_owned()].into_iter().chain((0..90).map(|n| format!("p{n:02}.example")));
        let wanted =
            names.filter(|name| name.contains(find) && after.is_none_or(|after| name.as_str() > after));
        wanted
            .take(max)
            .map(|name| Arc::new(CachedPolicy { domain: domain(&name), ..self.policy() }))
            .collect()
    }
}
