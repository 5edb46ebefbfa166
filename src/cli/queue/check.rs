//! `stsrelay queue check`: whether the store of a stopped daemon is sound. Offline; changes nothing.

use super::super::output::{Output, octets, progress, wrap};
use super::super::{ConfigArgs, Exit, Failure};
use crate::store::{self, Checked, Finding, Severity};

/// Messages named in a finding at most; `--json` names all.
const NAMED_MAX: usize = 10;

pub(super) fn check(args: &ConfigArgs, as_json: bool) -> Result<Exit, Failure> {
    let data_dir = args.load()?.config.server.data_dir;
    progress(&format!("reading {}", data_dir.display()));
    let checked = store::check(&data_dir).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let mut out = Output::new();
    if as_json {
        checked.findings.iter().try_for_each(|finding| out.json(finding))?;
        out.json(&Checked { findings: Vec::new(), ..checked.clone() })?;
    } else {
        checked.findings.iter().flat_map(describe).try_for_each(|line| out.line(&line))?;
        out.line(&summary(&checked))?;
    }
    out.finish()?;
    let bad = checked.findings.iter().any(|finding| finding.severity != Severity::Note);
    Ok(if bad { Exit::Negative } else { Exit::Fine })
}

fn describe(finding: &Finding) -> Vec<String> {
    let severity = match finding.severity {
        Severity::Error => "ERROR    ",
        Severity::Warning => "WARNING  ",
        Severity::Note => "NOTE     ",
    };
    let mut lines = wrap(severity, &format!("{}: {}", finding.path.display(), finding.text));
    lines.extend(wrap("         ", &finding.meaning));
    if !finding.messages.is_empty() {
        let mut named: Vec<String> =
            finding.messages.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = finding.messages.len().saturating_sub(NAMED_MAX);
        if more > 0 {
            named.push(format!("and {more} more"));
        }
        lines.extend(wrap("         messages: ", &named.join(" ")));
    }
    lines
}

fn summary(checked: &Checked) -> String {
    let count = |severity| checked.findings.iter().filter(|finding| finding.severity == severity).count();
    let verdict = match (count(Severity::Error), count(Severity::Warning)) {
        (0, 0) => "sound".to_owned(),
        (0, warnings) => format!("{warnings} to be repaired at the next start"),
        (errors, warnings) => format!("{errors} errors, {warnings} warnings"),
    };
    format!(
        "{} messages ({} items) in {} records, {} segments, {}: {verdict}",
        checked.messages,
        checked.items,
        checked.records,
        checked.segments,
        octets(checked.bytes)
    )
}
