//! `stsrelay check`: MTA-STS and TLS-RPT of a domain as its owner would check them. Needs no daemon.
//!
//! Gathers the facts through the doors of the configuration; `sts::check` judges them.

mod hosts;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::output::{COLUMNS, Output, cut, wrap};
use super::{ConfigArgs, Exit, Failure, JsonArg, output};
use crate::config::{Doors, Loaded, doors};
use crate::mail::Domain;
use crate::net::dns::{Dns, Lookup, MxRecord};
use crate::net::guard::AddressGuard;
use crate::net::https::{Https as _, ReqwestHttps};
use crate::net::tcp::{Dial as _, TcpDialer};
use crate::net::tls::{ClientOptions, ClientTls};
use crate::net::{Clock, SystemClock};
use crate::sts::check::{
    Asked, CERTIFICATE_DAYS_SHORT, Checked, Facts, ReportRecord, Served, Severity, check,
};
use crate::tlspolicy::CertificateFailure;
use crate::tlsrpt::record::{self, RecordError, Rua};

/// The look at the certificate's end, all in all.
const CERTIFICATE_WITHIN: Duration = Duration::from_secs(15);

/// What to check.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The domain of the addresses
    domain: Domain,
    /// Look at the MX hosts too: STARTTLS and certificate; no message is sent
    #[arg(long)]
    connect: bool,
    #[command(flatten)]
    json: JsonArg,
}

pub(super) fn run(arguments: &Arguments, args: &ConfigArgs) -> Result<Exit, Failure> {
    let loaded = args.load()?;
    let doors = doors(&loaded).map_err(Failure::config)?;
    output::progress(&format!("looking at {} ...", arguments.domain));
    let facts = block_on(gather(arguments, doors, &loaded))??;
    let checked = check(&facts);
    let mut out = Output::new();
    if arguments.json.json {
        for finding in &checked.findings {
            out.json(&json!({
                "domain": facts.domain,
                "severity": finding.severity,
                "code": finding.code,
                "text": finding.text,
            }))?;
        }
    } else {
        lines(&facts.domain, &checked).iter().try_for_each(|line| out.line(line))?;
    }
    out.finish()?;
    match checked.unanswered.is_empty() {
        false => Err(Failure::new(
            Exit::Failed,
            format!("DNS did not answer everything: {}", checked.unanswered.join("; ")),
        )),
        true if checked.is_bad() => Ok(Exit::Negative),
        true => Ok(Exit::Fine),
    }
}

/// Runs a verb's lookups, on this thread.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::new(Exit::Failed, format!("the runtime cannot be started: {error}")))?;
    Ok(runtime.block_on(work))
}

fn lines(domain: &Domain, checked: &Checked) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in &checked.findings {
        lines.extend(wrap(&format!("{:<8}", finding.severity), &finding.text));
    }
    let count = |severity| checked.findings.iter().filter(|finding| finding.severity == severity).count();
    lines.push(format!(
        "{domain}: {} high, {} medium, {} low",
        count(Severity::High),
        count(Severity::Medium),
        count(Severity::Low)
    ));
    lines.iter().map(|line| cut(line, COLUMNS)).collect()
}

async fn gather(arguments: &Arguments, doors: Doors, loaded: &Loaded) -> Result<Facts, Failure> {
    let domain = &arguments.domain;
    let Doors { dns, https, tcp, client_tls, guard } = doors;
    let dns: Arc<dyn Dns> = Arc::new(dns);
    let port = https.https_port;
    let https = ReqwestHttps::new(https, Arc::clone(&dns), guard.clone(), client_tls.roots())
        .map_err(|text| Failure::config(vec![loaded.error("mta_sts", text)]))?;
    let dialer = TcpDialer::new(tcp, guard.clone());
    let (mx, record, report, policy, certificate_ends_soon) = tokio::join!(
        dns.mx(domain),
        txt(&*dns, domain, "_mta-sts"),
        txt(&*dns, domain, "_smtp._tls"),
        https.fetch_policy(domain),
        certificate_end(&*dns, domain, port, &dialer, &guard, loaded),
    );
    let mut facts = Facts {
        domain: domain.clone(),
        mx: asked(mx, |mx: MxRecord| (mx.preference, mx.exchange)),
        record: asked(record, |text| text),
        policy: match policy {
            Ok(body) => Served::Body(body),
            Err(error) => Served::Trouble { fault: error.fault, text: error.text },
        },
        certificate_ends_soon,
        hosts: None,
        report: report_record(report),
    };
    if arguments.connect {
        let config = &loaded.config;
        let hostname = config.server.hostname.clone().unwrap_or_else(|| domain.clone());
        let port = config.delivery.smtp_port;
        let looking = hosts::Doors { dns: &*dns, dialer: &dialer, tls: client_tls, hostname, port };
        facts.hosts = Some(hosts::look(&looking, facts.mx_hosts()).await);
    }
    Ok(facts)
}

/// TXT of a service name; a name too long for DNS does not exist.
async fn txt(dns: &dyn Dns, domain: &Domain, service: &str) -> Lookup<Vec<u8>> {
    match domain.prefixed(service) {
        Ok(name) => dns.txt(&name).await,
        Err(_) => Lookup::NxDomain(crate::route::DnssecStatus::Insecure),
    }
}

fn asked<T, U>(lookup: Lookup<T>, read: impl FnMut(T) -> U) -> Asked<U> {
    match lookup {
        Lookup::Found(answer) => Asked::Found(answer.records.into_iter().map(read).collect()),
        Lookup::NoData(_) => Asked::NoData,
        Lookup::NxDomain(_) => Asked::NoName,
        Lookup::Failed(failure) => Asked::Failed(failure.to_string()),
    }
}

fn report_record(lookup: Lookup<Vec<u8>>) -> ReportRecord {
    let texts = match lookup {
        Lookup::Found(answer) => answer.records,
        Lookup::NoData(_) | Lookup::NxDomain(_) => return ReportRecord::Absent,
        Lookup::Failed(failure) => return ReportRecord::Failed(failure.to_string()),
    };
    match record::parse(&texts) {
        Ok(record) => ReportRecord::Usable {
            targets: record.rua.iter().map(Rua::to_string).collect(),
            unusable: unusable_targets(&texts),
        },
        Err(RecordError::Absent) => ReportRecord::Absent,
        Err(error) => ReportRecord::Bad(error.to_string()),
    }
}

/// The targets of the one record that senders leave out.
fn unusable_targets(texts: &[Vec<u8>]) -> Vec<(String, String)> {
    // The same record that was read: the only one that is usable by itself.
    let Some(text) = texts.iter().find(|text| record::parse(&[text]).is_ok()) else { return Vec::new() };
    let text = String::from_utf8_lossy(text);
    let targets = text.split(';').skip(1).filter_map(|field| field.split_once('='));
    let Some((_, targets)) = targets.into_iter().find(|(name, _)| name.trim() == "rua") else {
        return Vec::new();
    };
    targets
        .split(',')
        .map(str::trim)
        .filter(|target| target.parse::<Rua>().is_err())
        .map(|target| (target.to_owned(), target_trouble(target).to_owned()))
        .collect()
}

/// Why a target is not usable.
pub(super) fn target_trouble(target: &str) -> &'static str {
    match target.split_once(':') {
        Some((scheme, _)) if ["mailto", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
            "it is not a valid URI"
        }
        _ => "only mailto: and https: are used (RFC 8460, section 3)",
    }
}

/// Whether the policy host's certificate, good now, is so no longer in a fortnight; when it ends. Silent
/// about everything else: the fetch tells that.
async fn certificate_end(
    dns: &dyn Dns,
    domain: &Domain,
    port: u16,
    dialer: &TcpDialer,
    guard: &AddressGuard,
    loaded: &Loaded,
) -> Option<String> {
    let options = ClientOptions {
        use_system_roots: loaded.config.tls.use_system_roots,
        extra_roots_file: loaded.config.tls.extra_roots_file.clone(),
    };
    let look = async {
        let name = domain.prefixed("mta-sts").ok()?;
        let Lookup::Found(found) = dns.addresses(&name).await else { return None };
        let ip = found.records.into_iter().find(|ip| guard.check(*ip).is_ok())?;
        let tls = ClientTls::with_clock(&options, Arc::new(Soon)).ok()?;
        let connection =
            dialer.dial(SocketAddr::new(ip, port), name.as_str(), CERTIFICATE_WITHIN).await.ok()?;
        let (_, facts) = tls.handshake(connection.stream, &name, &name).await.ok()?;
        match facts.pkix {
            Err(CertificateFailure::Expired(when)) => Some(when),
            _ => None,
        }
    };
    tokio::time::timeout(CERTIFICATE_WITHIN, look).await.ok().flatten()
}

/// The clock a fortnight ahead: what fails by it fails soon.
struct Soon;

impl Clock for Soon {
    fn now(&self) -> Timestamp {
        let now = SystemClock.now();
        now.checked_add(SignedDuration::from_hours(24 * CERTIFICATE_DAYS_SHORT)).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sts::check::Finding;

    #[test]
    fn findings_are_shown_within_the_columns_the_worst_first() {
        let finding = |severity, text: &str| Finding { severity, code: "x", text: text.to_owned() };
        let checked = Checked {
            findings: vec![
                finding(Severity::High, &"word ".repeat(40)),
                finding(Severity::Medium, "something"),
                finding(Severity::Info, "fine"),
            ],
            unanswered: Vec::new(),
        };
        let lines = lines(&Domain::parse("a.example").unwrap(), &checked);
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS), "{lines:#?}");
        assert!(lines[0].starts_with("HIGH    word word"), "{}", lines[0]);
        assert_eq!(
            lines[lines.len() - 3..],
            ["MEDIUM  something", "INFO    fine", "a.example: 1 high, 1 medium, 0 low"]
        );
    }

    #[test]
    fn targets_that_senders_leave_out_are_told_with_the_reason() {
        let of = |text: &str| unusable_targets(&[b"v=spf1 -all".to_vec(), text.as_bytes().to_vec()]);
        assert_eq!(of("v=TLSRPTv1; rua=mailto:a@b.example"), []);
        let found = of("v=TLSRPTv1; rua=http://c.example/, mailto:a@b.example,mailto:nobody");
        assert_eq!(found[0].0, "http://c.example/");
        assert!(found[0].1.contains("only mailto: and https:"), "{found:?}");
        assert_eq!(found[1], ("mailto:nobody".to_owned(), "it is not a valid URI".to_owned()));
    }
}
