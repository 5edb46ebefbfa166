//! A digest as plain text, in lines that any mail reader and any terminal shows whole. Pure.

use std::fmt::Write as _;

use super::{Digest, Shortened};
use crate::tlsrpt::ResultType;

/// Columns of a line; a longer word stays whole.
const COLUMNS: usize = 78;
/// Characters of one entry at most.
const ENTRY_CHARS_MAX: usize = 600;

impl Digest {
    /// The first line, and the Subject of the mail.
    pub fn headline(&self) -> String {
        let news = self.new_failures.first.len() as u64 + self.new_failures.more;
        let undelivered = self.undelivered.first.len() as u64 + self.undelivered.more;
        let mut parts = vec![format!("{} of {} TLS sessions failed", self.failed, self.sessions)];
        if news > 0 {
            parts.push(format!("{news} new failures"));
        }
        let policies = self.policies.first.len() as u64 + self.policies.more;
        if policies > 0 {
            parts.push(format!("{policies} policies in danger"));
        }
        if undelivered > 0 {
            parts.push(format!("{undelivered} reports not delivered"));
        }
        if self.is_quiet() {
            parts.push("nothing new".to_owned());
        }
        format!("{}: {}", self.day, parts.join(", "))
    }

    /// The whole text, lines ended by LF.
    pub fn text(&self) -> String {
        let mut out = String::new();
        line(&mut out, "", &self.headline());
        line(&mut out, "", &format!("{} recipient domains; UTC; made at {:.0}.", self.domains, self.made_at));
        section(&mut out, "Worst destinations", &self.worst, |worst| {
            let how = worst.result_type.map(|kind| format!(", mostly {}", word(kind))).unwrap_or_default();
            format!("{}: {} of {} sessions failed{how}", worst.domain, worst.failed, worst.sessions)
        });
        section(&mut out, "New failures since the day before", &self.new_failures, |new| {
            let at = new.mx.as_ref().map(|mx| format!(" at {mx}")).unwrap_or_default();
            let why = new.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("{}: {} in {} sessions{at}{why}", new.domain, word(new.result_type), new.sessions)
        });
        section(&mut out, "Policies that run out or cannot be fetched again", &self.policies, |policy| {
            let why = policy.why.as_ref().map(|why| format!(", {why}")).unwrap_or_default();
            format!(
                "{}: applies until {:.0}; {} fetches failed in a row{why}",
                policy.domain, policy.expires_at, policy.failures
            )
        });
        section(&mut out, "Protection that became less", &self.changes, |noticed| {
            format!("{} {}: {}", noticed.at.strftime("%H:%M"), noticed.domain, noticed.change)
        });
        section(&mut out, "Reports that were not delivered", &self.undelivered, |report| {
            format!("{} {} to {}: {}", report.day, report.domain, report.target, report.why)
        });
        section(&mut out, "Report targets left alone", &self.suppressed, |target| {
            format!("{} until {:.0}: {}", target.target, target.until, target.why)
        });
        out
    }
}

fn section<T>(out: &mut String, title: &str, list: &Shortened<T>, told: impl Fn(&T) -> String) {
    if list.is_empty() {
        return;
    }
    let _ = write!(out, "\n{title}\n");
    for entry in &list.first {
        line(out, "- ", &told(entry));
    }
    if list.more > 0 {
        line(out, "- ", &format!("and {} more", list.more));
    }
}

/// A text broken at blanks, the lines after the first indented; nothing of it can steer a terminal.
fn line(out: &mut String, mark: &str, text: &str) {
    let mut clean = crate::tlsrpt::read::clean(text);
    if let Some((at, _)) = clean.char_indices().nth(ENTRY_CHARS_MAX) {
        clean.truncate(at);
        clean.push('…');
    }
    let mut line = mark.to_owned();
    let indent = " ".repeat(mark.len());
    let mut words = 0;
    for word in clean.split_whitespace() {
        if words > 0 && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            out.push_str(&line);
            out.push('\n');
            line.clone_from(&indent);
            words = 0;
        }
        if words > 0 {
            line.push(' ');
        }
        line.push_str(word);
        words += 1;
    }
    out.push_str(&line);
    out.push('\n');
}

fn word(kind: ResultType) -> String {
    serde_json::to_value(kind).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}
