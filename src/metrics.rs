//! What the relay counts, under the names that Prometheus and OpenMetrics read.
//!
//! Names and labels are an interface: dashboards and alerts stand on them, so they stay. Each label takes
//! a handful of values that are ours; no address, domain or id is ever one, so the number of series does
//! not grow with traffic. Counting never waits and never fails. The stories count what happens; what can
//! be read off the queue at any time is read when somebody asks ([`Metrics::render`]).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Content type of what [`Metrics::render`] makes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds from the end of a message's content to its acceptance, and of one flush of the journal.
const BRIEF: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// Seconds from acceptance to delivery.
const LONG: [f64; 12] =
    [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 3600.0, 14_400.0, 86_400.0, 432_000.0];
/// Series in all: a bound should a label ever take values it must not.
const SERIES_MAX: usize = 2000;

/// The counters. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

/// How what was delivered was protected on its way to the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// A TLSA record matched, whatever else was demanded.
    Dane,
    /// MTA-STS in mode enforce was met.
    StsEnforce,
    /// Something else demanded TLS, and got it: a local rule, REQUIRETLS, TLSA records that cannot be used.
    Demanded,
    /// TLS under MTA-STS in mode testing, which demands nothing.
    StsTesting,
    /// TLS that nothing demanded.
    Opportunistic,
    /// No TLS.
    Clear,
}

impl Protection {
    /// All of them, the strongest first.
    pub const ALL: [Self; 6] =
        [Self::Dane, Self::StsEnforce, Self::Demanded, Self::StsTesting, Self::Opportunistic, Self::Clear];

    /// Its label.
    pub fn word(self) -> &'static str {
        match self {
            Self::Dane => "dane",
            Self::StsEnforce => "mta-sts enforce",
            Self::Demanded => "demanded",
            Self::StsTesting => "mta-sts testing",
            Self::Opportunistic => "opportunistic",
            Self::Clear => "clear",
        }
    }
}

/// What was counted since the start, summed over all labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Recipients of messages taken from clients.
    pub accepted: u64,
    /// Recipients delivered to.
    pub delivered: u64,
    /// Attempts after which an item waits for another one.
    pub deferred: u64,
    /// Recipients given up.
    pub failed: u64,
    /// Recipients delivered to, in the order of [`Protection::ALL`].
    pub protection: [u64; 6],
}

/// The running sums of [`Totals`].
#[derive(Default)]
struct Sums {
    accepted: AtomicU64,
    delivered: AtomicU64,
    deferred: AtomicU64,
    failed: AtomicU64,
    protection: [AtomicU64; 6],
}

struct Inner {
    registry: Registry,
    sums: Sums,
    /// How many series of counters there are.
    series: AtomicUsize,
    connections: Family<Pairs<1>, Gauge>,
    connections_begun: Family<Pairs<1>, Counter>,
    connections_refused: Family<Pairs<2>, Counter>,
    logins: Family<Pairs<3>, Counter>,
    limited: Family<Pairs<2>, Counter>,
    accepted: Family<Pairs<1>, Counter>,
    accepted_octets: Family<Pairs<1>, Counter>,
    accepted_recipients: Family<Pairs<1>, Counter>,
    refused: Family<Pairs<2>, Counter>,
    acceptance: Histogram,
    attempts: Family<Pairs<2>, Counter>,
    recipients: Family<Pairs<1>, Counter>,
    protection: Family<Pairs<1>, Counter>,
    delivery: Histogram,
    notices: Family<Pairs<1>, Counter>,
    tls_sessions: Family<Pairs<3>, Counter>,
    flushes: Histogram,
    flushed: Counter,
    queue_items: Family<Pairs<1>, Gauge>,
    queue_octets: Gauge,
    queue_oldest: Family<Pairs<1>, Gauge>,
    dnssec: Family<Pairs<1>, Gauge>,
    report_deliveries: Family<Pairs<2>, Counter>,
    store_writable: Gauge,
    store_free: Gauge,
    policies: Family<Pairs<1>, Gauge>,
    policy_changes: Family<Pairs<1>, Counter>,
    policy_fetches_failed: Counter,
    policy_refetch_alarms: Counter,
    reports: Family<Pairs<1>, Gauge>,
}

/// Names and values of labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pairs<const N: usize>([(&'static str, String); N]);

impl<const N: usize> EncodeLabelSet for Pairs<N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.iter().try_for_each(|(name, value)| {
            use prometheus_client::encoding::EncodeLabel as _;
            (*name, value.as_str()).encode(encoder.encode_label())
        })
    }
}

/// What can be read at any time, for one rendering.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Items of the queue by state.
    pub queue_items: Vec<(&'static str, u64)>,
    /// Octets of the queue on disk.
    pub queue_octets: u64,
    /// Age of the oldest message by state.
    pub queue_oldest: Vec<(&'static str, Duration)>,
    /// 1 for how DNSSEC validation does, 0 for how it does not.
    pub dnssec: Vec<(&'static str, u64)>,
    /// Whether messages can be stored.
    pub writable: bool,
    /// Octets free on the queue's disk; 0 where it does not tell.
    pub disk_free: u64,
    /// Cached MTA-STS policies by mode.
    pub policies: Vec<(&'static str, u64)>,
    /// Policy changes since the start by severity.
    pub policy_changes: Vec<(&'static str, u64)>,
    /// Policy fetches that failed since the start.
    pub policy_fetches_failed: u64,
    /// Alarms since the start that a policy could not be fetched again.
    pub policy_refetch_alarms: u64,
    /// Outgoing reports that are kept, by state.
    pub reports: Vec<(&'static str, u64)>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("stsrelay");
        let version = [("version".into(), env!("CARGO_PKG_VERSION").into())];
        let build = Gauge::<i64>::default();
        build.set(1);
        registry.sub_registry_with_labels(version.into_iter()).register(
            "build_info",
            "The release that runs, as a label; always 1",
            build,
        );
        let mut inner = Inner {
            registry: Registry::default(),
            sums: Sums::default(),
            series: AtomicUsize::new(0),
            connections: Family::default(),
            connections_begun: Family::default(),
            connections_refused: Family::default(),
            logins: Family::default(),
            limited: Family::default(),
            accepted: Family::default(),
            accepted_octets: Family::default(),
            accepted_recipients: Family::default(),
            refused: Family::default(),
            acceptance: Histogram::new(BRIEF),
            attempts: Family::default(),
            recipients: Family::default(),
            protection: Family::default(),
            delivery: Histogram::new(LONG),
            notices: Family::default(),
            tls_sessions: Family::default(),
            flushes: Histogram::new(BRIEF),
            flushed: Counter::default(),
            queue_items: Family::default(),
            queue_octets: Gauge::default(),
            queue_oldest: Family::default(),
            dnssec: Family::default(),
            report_deliveries: Family::default(),
            store_writable: Gauge::default(),
            store_free: Gauge::default(),
            policies: Family::default(),
            policy_changes: Family::default(),
            policy_fetches_failed: Counter::default(),
            policy_refetch_alarms: Counter::default(),
            reports: Family::default(),
        };
        inner.register(&mut registry);
        inner.registry = registry;
        Self { inner: Arc::new(inner) }
    }

    /// A connection of a client, open until the guard is dropped.
    pub fn connection(&self, listener: &str) -> Open {
        let labels = Pairs([("listener", listener.to_owned())]);
        self.inner.count(&self.inner.connections_begun, &labels, 1);
        let gauge = self.inner.connections.get_or_create_owned(&labels);
        gauge.inc();
        Open { gauge }
    }

    /// A connection that was turned away: `limit`.
    pub fn turned_away(&self, listener: &str, reason: &'static str) {
        let labels = [("listener", listener.to_owned()), ("reason", reason.to_owned())];
        self.inner.count(&self.inner.connections_refused, &Pairs(labels), 1);
    }

    /// An attempt to authenticate: `granted`, `refused`, `put_off` or `busy`.
    pub fn login(&self, listener: &str, mechanism: &'static str, result: &'static str) {
        let labels = [
            ("listener", listener.to_owned()),
            ("mechanism", mechanism.to_owned()),
            ("result", result.to_owned()),
        ];
        self.inner.count(&self.inner.logins, &Pairs(labels), 1);
    }

    /// A client was refused something by a limit: `messages`, `recipients`, `connections`, `sender` or
    /// `author`.
    pub fn limited(&self, listener: &str, limit: &'static str) {
        let labels = [("listener", listener.to_owned()), ("limit", limit.to_owned())];
        self.inner.count(&self.inner.limited, &Pairs(labels), 1);
    }

    /// A message is queued; `took` since the end of its content.
    pub fn accepted(&self, listener: &str, octets: u64, recipients: u64, took: Duration) {
        let labels = Pairs([("listener", listener.to_owned())]);
        self.inner.count(&self.inner.accepted, &labels, 1);
        self.inner.count(&self.inner.accepted_octets, &labels, octets);
        self.inner.count(&self.inner.accepted_recipients, &labels, recipients);
        self.inner.sums.accepted.fetch_add(recipients, Ordering::Relaxed);
        self.inner.acceptance.observe(took.as_secs_f64());
    }

    /// A command or a message was refused with this reply code.
    pub fn refused(&self, listener: &str, code: u16) {
        let labels = [("listener", listener.to_owned()), ("code", code.to_string())];
        self.inner.count(&self.inner.refused, &Pairs(labels), 1);
    }

    /// A delivery attempt of an item ended like this, by this rule.
    pub fn attempt(&self, outcome: &'static str, rule: &str) {
        let labels = [("outcome", outcome.to_owned()), ("rule", rule.to_owned())];
        self.inner.count(&self.inner.attempts, &Pairs(labels), 1);
        if outcome == "deferred" {
            self.inner.sums.deferred.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Recipients that are done with: `delivered` or `failed`.
    pub fn recipients(&self, outcome: &'static str, recipients: u64) {
        if recipients > 0 {
            self.inner.count(&self.inner.recipients, &Pairs([("outcome", outcome.to_owned())]), recipients);
            let sums = &self.inner.sums;
            let sum = if outcome == "delivered" { &sums.delivered } else { &sums.failed };
            sum.fetch_add(recipients, Ordering::Relaxed);
        }
    }

    /// Recipients delivered to under this protection.
    pub fn delivered_under(&self, protection: Protection, recipients: u64) {
        if recipients > 0 {
            let labels = Pairs([("protection", protection.word().to_owned())]);
            self.inner.count(&self.inner.protection, &labels, recipients);
            if let Some(at) = Protection::ALL.iter().position(|one| *one == protection) {
                self.inner.sums.protection[at].fetch_add(recipients, Ordering::Relaxed);
            }
        }
    }

    /// What was counted so far.
    pub fn totals(&self) -> Totals {
        let sums = &self.inner.sums;
        let read = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        Totals {
            accepted: read(&sums.accepted),
            delivered: read(&sums.delivered),
            deferred: read(&sums.deferred),
            failed: read(&sums.failed),
            protection: sums.protection.each_ref().map(read),
        }
    }

    /// An item was delivered so long after it had been accepted.
    pub fn delivered_after(&self, age: Duration) {
        self.inner.delivery.observe(age.as_secs_f64());
    }

    /// Notices to senders were queued.
    pub fn notices(&self, kind: &'static str, notices: u64) {
        if notices > 0 {
            self.inner.count(&self.inner.notices, &Pairs([("kind", kind.to_owned())]), notices);
        }
    }

    /// A session with an MX host: `version` of TLS or `none`, the rule it was held to, and whether that was
    /// met.
    pub fn tls_session(&self, version: &str, rule: &str, met: bool) {
        let result = if met { "met" } else { "failed" };
        let labels =
            [("version", version.to_owned()), ("rule", rule.to_owned()), ("result", result.to_owned())];
        self.inner.count(&self.inner.tls_sessions, &Pairs(labels), 1);
    }

    /// One try to bring a TLS report to a target.
    pub fn report(&self, target: &'static str, outcome: &'static str) {
        let labels = [("target", target.to_owned()), ("outcome", outcome.to_owned())];
        self.inner.count(&self.inner.report_deliveries, &Pairs(labels), 1);
    }

    /// The journal was flushed with so many records in it.
    pub fn flushed(&self, took: Duration, records: u64) {
        self.inner.flushes.observe(took.as_secs_f64());
        self.inner.flushed.inc_by(records);
    }

    /// All of it in the OpenMetrics text format.
    pub fn render(&self, now: &Snapshot) -> String {
        let inner = &*self.inner;
        show(&inner.queue_items, "state", &now.queue_items);
        inner.queue_octets.set(number(now.queue_octets));
        let ages: Vec<_> = now.queue_oldest.iter().map(|(state, age)| (*state, age.as_secs())).collect();
        show(&inner.queue_oldest, "state", &ages);
        show(&inner.dnssec, "state", &now.dnssec);
        inner.store_writable.set(i64::from(now.writable));
        inner.store_free.set(number(now.disk_free));
        show(&inner.policies, "mode", &now.policies);
        for (severity, changes) in &now.policy_changes {
            let labels = Pairs([("severity", (*severity).to_owned())]);
            inner.policy_changes.get_or_create(&labels).inner().store(*changes, Ordering::Relaxed);
        }
        // Counted where they happen.
        inner.policy_fetches_failed.inner().store(now.policy_fetches_failed, Ordering::Relaxed);
        inner.policy_refetch_alarms.inner().store(now.policy_refetch_alarms, Ordering::Relaxed);
        show(&inner.reports, "state", &now.reports);
        let mut out = String::new();
        // Writing into a string cannot fail.
        let _ = text::encode(&mut out, &inner.registry);
        out
    }
}

impl Inner {
    fn count<const N: usize>(&self, family: &Family<Pairs<N>, Counter>, labels: &Pairs<N>, by: u64) {
        if let Some(counter) = family.get(labels) {
            counter.inc_by(by);
        } else if self.series.fetch_add(1, Ordering::Relaxed) < SERIES_MAX {
            family.get_or_create(labels).inc_by(by);
        } else {
            self.series.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Connections of clients, by listener", self.connections.clone());
        registry.register("connections_begun", "Connections accepted", self.connections_begun.clone());
        registry.register(
            "connections_refused",
            "Connections turned away, by listener and reason",
            self.connections_refused.clone(),
        );
        registry.register("logins", "Attempts to authenticate, by mechanism and result", self.logins.clone());
        registry.register(
            "limit_refusals",
            "Refusals to users and networks over one of their limits, by limit",
            self.limited.clone(),
        );
        registry.register("messages_accepted", "Messages queued for clients", self.accepted.clone());
        registry.register("accepted_octets", "Octets of those messages", self.accepted_octets.clone());
        registry.register(
            "accepted_recipients",
            "Recipients of those messages",
            self.accepted_recipients.clone(),
        );
        registry.register("refusals", "Refusals to clients, by reply code", self.refused.clone());
        registry.register_with_unit(
            "acceptance",
            "From the end of a message's content to its durable acceptance",
            Unit::Seconds,
            self.acceptance.clone(),
        );
        registry.register("attempts", "Delivery attempts, by outcome and rule", self.attempts.clone());
        registry.register("recipients", "Recipients done with, by outcome", self.recipients.clone());
        registry.register(
            "delivered_recipients",
            "Recipients delivered to, by what protected the mail on its way to the next hop",
            self.protection.clone(),
        );
        registry.register_with_unit(
            "delivery",
            "From a message's acceptance to its delivery at one domain",
            Unit::Seconds,
            self.delivery.clone(),
        );
        registry.register("notices", "Bounces and delay warnings queued", self.notices.clone());
        registry.register(
            "tls_sessions",
            "Sessions with MX hosts, by TLS version, rule and whether the rule was met",
            self.tls_sessions.clone(),
        );
        registry.register_with_unit(
            "store_flush",
            "One write and fdatasync of the journal",
            Unit::Seconds,
            self.flushes.clone(),
        );
        registry.register("store_flushed", "Records made durable by those", self.flushed.clone());
        registry.register("queue_items", "Messages by recipient domain, by state", self.queue_items.clone());
        registry.register_with_unit("queue", "The queue on disk", Unit::Bytes, self.queue_octets.clone());
        registry.register_with_unit(
            "queue_oldest",
            "Age of the oldest message in the queue, by state",
            Unit::Seconds,
            self.queue_oldest.clone(),
        );
        registry.register(
            "store_writable",
            "Whether messages can be stored: 1, or 0 while clients get 451 or 452",
            self.store_writable.clone(),
        );
        registry.register_with_unit(
            "store_free",
            "Room left on the queue's disk",
            Unit::Bytes,
            self.store_free.clone(),
        );
        registry.register("policies", "Cached MTA-STS policies, by mode", self.policies.clone());
        registry.register(
            "policy_changes",
            "Changes of destinations' policies, by severity",
            self.policy_changes.clone(),
        );
        registry.register(
            "policy_fetches_failed",
            "Fetches of MTA-STS policies that failed",
            self.policy_fetches_failed.clone(),
        );
        registry.register(
            "policy_refetch_alarms",
            "Policies that could not be fetched again several times in a row",
            self.policy_refetch_alarms.clone(),
        );
        registry.register(
            "dnssec",
            "How DNSSEC validation does: 1 for the state it is in",
            self.dnssec.clone(),
        );
        registry.register(
            "report_deliveries",
            "Tries to bring TLS reports to their targets, by kind of target and outcome",
            self.report_deliveries.clone(),
        );
        registry.register("reports", "Outgoing TLS reports that are kept, by state", self.reports.clone());
    }
}

/// A connection that is counted as open.
pub struct Open {
    gauge: Gauge,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

fn show(family: &Family<Pairs<1>, Gauge>, label: &'static str, values: &[(&'static str, u64)]) {
    for (value, n) in values {
        family.get_or_create(&Pairs([(label, (*value).to_owned())])).set(number(*n));
    }
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything counted once, and the connection that is open.
    fn counted() -> (Metrics, Open, Snapshot) {
        let metrics = Metrics::new();
        let open = metrics.connection("smarthost");
        metrics.turned_away("smarthost", "limit");
        metrics.login("submission", "PLAIN", "refused");
        metrics.limited("submission", "messages");
        metrics.accepted("smarthost", 1000, 2, Duration::from_millis(3));
        metrics.refused("smarthost", 550);
        metrics.attempt("deferred", "mta-sts enforce");
        metrics.recipients("delivered", 2);
        metrics.delivered_under(Protection::Dane, 2);
        metrics.recipients("failed", 0);
        metrics.delivered_after(Duration::from_secs(2));
        metrics.notices("bounce", 1);
        metrics.tls_session("TLSv1.3", "dane", true);
        metrics.flushed(Duration::from_millis(1), 7);
        metrics.report("https", "accepted");
        let now = Snapshot {
            queue_items: vec![("active", 3), ("deferred", 4)],
            queue_octets: 5000,
            queue_oldest: vec![("active", Duration::ZERO), ("deferred", Duration::from_secs(60))],
            dnssec: vec![("works", 0), ("broken", 1)],
            writable: true,
            disk_free: 9000,
            policies: vec![("enforce", 9)],
            policy_changes: vec![("alarm", 1)],
            policy_fetches_failed: 2,
            policy_refetch_alarms: 1,
            reports: vec![("sent", 6)],
        };
        (metrics, open, now)
    }

    #[test]
    fn everything_that_is_counted_is_rendered_under_its_name() {
        let (metrics, open, now) = counted();
        let text = metrics.render(&now);
        for line in [
            "stsrelay_connections{listener=\"smarthost\"} 1",
            "stsrelay_connections_begun_total{listener=\"smarthost\"} 1",
            "stsrelay_connections_refused_total{listener=\"smarthost\",reason=\"limit\"} 1",
            "stsrelay_logins_total{listener=\"submission\",mechanism=\"PLAIN\",result=\"refused\"} 1",
            "stsrelay_limit_refusals_total{listener=\"submission\",limit=\"messages\"} 1",
            "stsrelay_messages_accepted_total{listener=\"smarthost\"} 1",
            "stsrelay_accepted_octets_total{listener=\"smarthost\"} 1000",
            "stsrelay_accepted_recipients_total{listener=\"smarthost\"} 2",
            "stsrelay_refusals_total{listener=\"smarthost\",code=\"550\"} 1",
            "stsrelay_acceptance_seconds_count 1",
            "stsrelay_attempts_total{outcome=\"deferred\",rule=\"mta-sts enforce\"} 1",
            "stsrelay_recipients_total{outcome=\"delivered\"} 2",
            "stsrelay_delivered_recipients_total{protection=\"dane\"} 2",
            "stsrelay_delivery_seconds_sum 2.0",
            "stsrelay_notices_total{kind=\"bounce\"} 1",
            "stsrelay_tls_sessions_total{version=\"TLSv1.3\",rule=\"dane\",result=\"met\"} 1",
            "stsrelay_store_flush_seconds_count 1",
            "stsrelay_store_flushed_total 7",
            "stsrelay_queue_items{state=\"deferred\"} 4",
            "stsrelay_queue_bytes 5000",
            "stsrelay_queue_oldest_seconds{state=\"deferred\"} 60",
            "stsrelay_dnssec{state=\"broken\"} 1",
            "stsrelay_report_deliveries_total{target=\"https\",outcome=\"accepted\"} 1",
            "stsrelay_store_writable 1",
            "stsrelay_store_free_bytes 9000",
            "stsrelay_policies{mode=\"enforce\"} 9",
            "stsrelay_policy_changes_total{severity=\"alarm\"} 1",
            "stsrelay_policy_fetches_failed_total 2",
            "stsrelay_policy_refetch_alarms_total 1",
            "stsrelay_reports{state=\"sent\"} 6",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("outcome=\"failed\"") && text.ends_with("# EOF\n"));
        assert!(text.contains("stsrelay_build_info{version=\""), "{text}");
        drop(open);
        assert!(metrics.render(&now).contains("stsrelay_connections{listener=\"smarthost\"} 0"));
    }

    #[test]
    fn totals_are_the_sums_over_all_labels() {
        let (metrics, _open, _now) = counted();
        metrics.accepted("submission", 1000, 3, Duration::from_millis(3));
        metrics.attempt("delivered", "dane");
        metrics.recipients("failed", 4);
        metrics.delivered_under(Protection::Clear, 1);
        let expected =
            Totals { accepted: 5, delivered: 2, deferred: 1, failed: 4, protection: [2, 0, 0, 0, 0, 1] };
        assert_eq!(metrics.totals(), expected);
    }

    #[test]
    fn a_label_that_takes_too_many_values_is_bounded() {
        let metrics = Metrics::new();
        for n in 0..10_000 {
            metrics.attempt("deferred", &format!("rule {n}"));
        }
        let text = metrics.render(&Snapshot::default());
        assert_eq!(text.matches("stsrelay_attempts_total{").count(), SERIES_MAX);
    }

    #[test]
    fn dashboard_and_alerts_ask_for_what_there_is() {
        let (metrics, _open, now) = counted();
        let text = metrics.render(&now);
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let mut asked = 0;
        for file in ["prometheus/stsrelay.rules.yml", "grafana/stsrelay.json"] {
            let content = std::fs::read_to_string(root.join(file)).unwrap();
            for piece in content.split("stsrelay_").skip(1) {
                let rest: String =
                    piece.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let name = format!("stsrelay_{rest}");
                asked += 1;
                let there =
                    |line: &str| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with([' ', '{']));
                assert!(text.lines().any(there), "{file} asks for {name}");
            }
        }
        assert!(asked > 30, "{asked}");
    }
}
