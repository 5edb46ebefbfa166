//! `stsrelay report read FILE...`: the TLS reports of others as tables, or as JSON lines.
//!
//! Finds files and prints; understanding them is `tlsrpt::read`'s. Needs no daemon and no
//! configuration. Never prints a control character of a report, never follows a symbolic link within
//! a folder. Bounded in files, depth and octets; whatever was left out is told.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::super::output::{Output, Table, cut, errors, progress};
use super::super::{Exit, Failure, JsonArg};
use crate::tlsrpt::read::{
    Counted, Deviation, Failed, FailedSum, Found, MAIL_BYTES_MAX, ReadReport, Sum, Sums, UNPACKED_BYTES_MAX,
    clean, mbox, unpack,
};

/// Files of all folders looked at; a Maildir of some years.
const FILES_MAX: usize = 200_000;
/// Folders within folders.
const DEPTH_MAX: usize = 16;
/// Files between two lines of progress; some thousand are read in a second.
const PROGRESS_EVERY: usize = 2000;
/// Rows of a table printed for people; `--json` has all.
const ROWS_SHOWN: usize = 200;

/// What to read.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Arguments {
    /// Files or folders; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    json: JsonArg,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut reading = Reading {
        out: Output::new(),
        as_json: arguments.json.json,
        sums: Sums::default(),
        reports: Table::new(&["RANGE", "FROM", "SESSIONS", "FAILED", "REPORT-ID"], 4),
        left_out: 0,
        files: 0,
        found: 0,
        troubles: 0,
        unreadable: 0,
        written: Ok(()),
    };
    for path in &arguments.files {
        if path.as_os_str() == "-" {
            reading.stream(&mut BufReader::new(io::stdin().lock()), "-", None, true);
        } else if path.is_dir() {
            reading.folder(path);
        } else {
            reading.file(path, true);
        }
    }
    reading.end()
}

struct Reading {
    out: Output,
    as_json: bool,
    sums: Sums,
    reports: Table,
    /// Reports without a row of their own.
    left_out: u64,
    files: usize,
    /// Reports and troubles found so far.
    found: u64,
    troubles: u64,
    unreadable: u64,
    /// How printing went.
    written: io::Result<()>,
}

impl Reading {
    fn folder(&mut self, top: &Path) {
        let mut folders = vec![(top.to_owned(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let entries = fs::read_dir(&folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
            let mut entries = match entries {
                Ok(entries) => entries,
                Err(error) => {
                    self.cannot_read(&folder, &error.to_string());
                    continue;
                }
            };
            entries.sort_by_key(fs::DirEntry::file_name);
            let has = |name: &str| entries.iter().any(|entry| entry.file_name() == name);
            // What is in a Maildir's tmp was not delivered yet.
            let is_maildir = has("cur") && has("new");
            let mut below = Vec::new();
            for entry in &entries {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && is_maildir && entry.file_name() == "tmp" => {}
                    Ok(kind) if kind.is_dir() && depth >= DEPTH_MAX => {
                        self.cannot_read(&entry.path(), "folders are nested more than 16 deep; not read");
                    }
                    Ok(kind) if kind.is_dir() => below.push((entry.path(), depth + 1)),
                    Ok(kind) if kind.is_file() => {
                        if self.files >= FILES_MAX {
                            self.cannot_read(top, "more than 200000 files; the others were not read");
                            return;
                        }
                        self.file(&entry.path(), false);
                    }
                    Ok(_) => {}
                    Err(error) => self.cannot_read(&entry.path(), &error.to_string()),
                }
            }
            folders.extend(below.into_iter().rev());
        }
    }

    fn file(&mut self, path: &Path, asked: bool) {
        match File::open(path) {
            Ok(file) => {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                let shown = path.display().to_string();
                self.stream(&mut BufReader::new(file), &shown, name.as_deref(), asked);
            }
            Err(error) => self.cannot_read(path, &error.to_string()),
        }
    }

    fn stream<R: Read>(&mut self, reader: &mut BufReader<R>, shown: &str, name: Option<&str>, asked: bool) {
        self.files += 1;
        if self.files.is_multiple_of(PROGRESS_EVERY) {
            progress(&format!("{} files, {} reports", self.files, self.sums.total.reports));
        }
        let before = (self.found, self.troubles);
        let read = match reader.fill_buf() {
            Ok(start) if mbox::looks_like_mbox(start) => self.mbox(reader, shown),
            Ok(_) => self.whole(reader, shown, name, asked),
            Err(error) => Err(error),
        };
        match read {
            Err(error) => self.cannot_read(Path::new(shown), &error.to_string()),
            Ok(()) if asked && before == (self.found, self.troubles) => {
                self.trouble(shown, "", "no TLS report in it");
            }
            Ok(()) => {}
        }
    }

    fn mbox(&mut self, reader: &mut dyn io::BufRead, shown: &str) -> io::Result<()> {
        let mut number = 0;
        mbox::messages(reader, MAIL_BYTES_MAX, |message| {
            number += 1;
            let place = format!("message {number}");
            match message {
                Some(message) => unpack(message, None, false, &mut |found| {
                    let place = if found.place.is_empty() {
                        place.clone()
                    } else {
                        format!("{place}, {}", found.place)
                    };
                    self.take(shown, Found { place, ..found });
                }),
                None => self.trouble(shown, &place, "the mail is too large; not read"),
            }
        })
    }

    fn whole(
        &mut self,
        reader: &mut dyn Read,
        shown: &str,
        name: Option<&str>,
        asked: bool,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        reader.take(UNPACKED_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > UNPACKED_BYTES_MAX {
            // In a folder it is somebody else's.
            if asked {
                self.trouble(shown, "", "larger than 64 MB and no mbox file; not read");
            }
            return Ok(());
        }
        unpack(&bytes, name, asked, &mut |found| self.take(shown, found));
        Ok(())
    }

    fn take(&mut self, shown: &str, found: Found) {
        let report = match found.report {
            Ok(report) => report,
            Err(text) => return self.trouble(shown, &found.place, &text),
        };
        self.found += 1;
        let counted = self.sums.add(&report);
        if self.as_json {
            let object = match counted {
                Counted::Once => report_object(&report, shown, &found.place),
                Counted::Again | Counted::AgainOtherwise => json!({
                    "kind": "duplicate", "file": clean(shown), "place": found.place, "from": report.sender(),
                    "report-id": report.report_id, "same-content": counted == Counted::Again,
                }),
            };
            return self.print_json(&object);
        }
        match counted {
            Counted::Once if self.sums.total.reports as usize > ROWS_SHOWN => self.left_out += 1,
            Counted::Once => self.reports.row(cells(&report), departures(&report)),
            Counted::Again => {}
            Counted::AgainOtherwise => {
                let id = report.report_id.as_deref().unwrap_or_default();
                let text = format!("report {id} came before with another content; only the first is counted");
                errors(&[clean(&format!("{shown}: {text}"))]);
            }
        }
    }

    fn trouble(&mut self, shown: &str, place: &str, text: &str) {
        self.troubles += 1;
        self.tell(shown, place, text);
    }

    fn cannot_read(&mut self, path: &Path, text: &str) {
        self.unreadable += 1;
        self.tell(&path.display().to_string(), "", text);
    }

    fn tell(&mut self, shown: &str, place: &str, text: &str) {
        let place_shown = if place.is_empty() { String::new() } else { format!(" ({place})") };
        errors(&[clean(&format!("{shown}{place_shown}: {text}"))]);
        if self.as_json {
            self.print_json(&json!({
                "kind": "error", "file": clean(shown), "place": place, "text": clean(text),
            }));
        }
    }

    fn print_json(&mut self, value: &Value) {
        if self.written.is_ok() {
            self.written = self.out.json(value);
        }
    }

    fn end(mut self) -> Result<Exit, Failure> {
        std::mem::replace(&mut self.written, Ok(()))?;
        if self.as_json {
            json_sums(&self.sums).iter().try_for_each(|object| self.out.json(object))?;
        } else {
            self.tables()?;
        }
        let exit = match (self.unreadable, self.troubles, self.sums.total.reports) {
            (1.., ..) => Exit::Failed,
            (0, 0, 1..) => Exit::Fine,
            _ => Exit::Negative,
        };
        self.out.finish()?;
        Ok(exit)
    }

    fn tables(&mut self) -> io::Result<()> {
        let sums = &self.sums;
        if sums.total.reports == 0 {
            return self.out.line("no TLS report was found");
        }
        let mut lines = self.reports.lines();
        if self.left_out > 0 {
            lines.push(format!("and {} more reports", self.left_out));
        }
        lines.push(String::new());
        lines.extend(sum_table(
            &["FROM", "REPORTS", "SESSIONS", "FAILED", "SHARE"],
            0,
            ordered(&sums.organizations),
            |name| vec![name.clone()],
        ));
        lines.push(String::new());
        lines.extend(sum_table(
            &["POLICY DOMAIN", "POLICY", "REPORTS", "SESSIONS", "FAILED", "SHARE"],
            0,
            ordered(&sums.domains),
            |(domain, policy)| vec![domain.clone(), cut(policy, 16)],
        ));
        lines.push(String::new());
        lines.extend(failure_table(sums));
        lines.push(total_line(sums));
        lines.iter().try_for_each(|line| self.out.line(line))
    }
}

/// A whole UTC day as the day, anything else as it is.
fn range(report: &ReadReport) -> String {
    let (Some(start), Some(end)) = (report.start_datetime, report.end_datetime) else {
        return "-".to_owned();
    };
    let length = end.duration_since(start).as_secs();
    let at_midnight = start.as_second().rem_euclid(86_400) == 0;
    // The last second of the day, or the first of the next.
    if at_midnight && (86_399..=86_400).contains(&length) {
        return start.strftime("%Y-%m-%d").to_string();
    }
    format!("{}..{}", start.strftime("%Y-%m-%dT%H:%MZ"), end.strftime("%Y-%m-%dT%H:%MZ"))
}

fn cells(report: &ReadReport) -> Vec<String> {
    vec![
        range(report),
        cut(report.sender(), 24),
        report.successful().saturating_add(report.failed()).to_string(),
        report.failed().to_string(),
        report.report_id.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn departures(report: &ReadReport) -> Option<String> {
    let words: Vec<&str> = report.deviations.iter().map(|deviation| Deviation::word(*deviation)).collect();
    (!words.is_empty()).then(|| format!("departs from RFC 8460: {}", words.join(", ")))
}

/// Most failures first, then most sessions.
fn ordered<K>(rows: &std::collections::BTreeMap<K, Sum>) -> Vec<(&K, &Sum)> {
    let mut rows: Vec<(&K, &Sum)> = rows.iter().collect();
    rows.sort_by_key(|(_, sum)| std::cmp::Reverse((sum.failed, sum.sessions())));
    rows
}

fn sum_table<K>(
    heading: &[&'static str],
    flexible: usize,
    rows: Vec<(&K, &Sum)>,
    names: impl Fn(&K) -> Vec<String>,
) -> Vec<String> {
    let mut table = Table::new(heading, flexible);
    let more = rows.len().saturating_sub(ROWS_SHOWN);
    for (key, sum) in rows.into_iter().take(ROWS_SHOWN) {
        let mut cells = names(key);
        cells.extend([
            sum.reports.to_string(),
            sum.sessions().to_string(),
            sum.failed.to_string(),
            share(sum),
        ]);
        table.row(cells, None);
    }
    let mut lines = table.lines();
    lines.extend((more > 0).then(|| format!("and {more} more")));
    lines
}

fn share(sum: &Sum) -> String {
    format!("{:.2} %", sum.failed_percent())
}

fn failure_table(sums: &Sums) -> Vec<String> {
    if sums.failures.is_empty() {
        return Vec::new();
    }
    let mut rows: Vec<(&Failed, &FailedSum)> = sums.failures.iter().collect();
    rows.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.sessions));
    let more = rows.len().saturating_sub(ROWS_SHOWN);
    let mut table = Table::new(&["FAILURE", "MX", "SESSIONS", "REPORTED BY"], 1);
    for (failed, sum) in rows.into_iter().take(ROWS_SHOWN) {
        let names: Vec<&str> = sum.organizations.iter().map(String::as_str).collect();
        let cells = vec![
            cut(&failed.result_type, 27),
            failed.receiving_mx_hostname.clone().unwrap_or_else(|| "-".to_owned()),
            sum.sessions.to_string(),
            cut(&names.join(", "), 24),
        ];
        table.row(cells, failed.failure_reason_code.clone());
    }
    let mut lines = table.lines();
    lines.extend((more > 0).then(|| format!("and {more} more")));
    lines.push(String::new());
    lines
}

fn total_line(sums: &Sums) -> String {
    let total = &sums.total;
    let mut line = format!(
        "{} reports, {} sessions, {} failed ({})",
        total.reports,
        total.sessions(),
        total.failed,
        share(total)
    );
    if sums.duplicates > 0 {
        line.push_str(&format!("; {} duplicates not counted", sums.duplicates));
    }
    if sums.cut > 0 {
        line.push_str(&format!("; {} counts beyond the tables' bounds", sums.cut));
    }
    line
}

fn report_object(report: &ReadReport, shown: &str, place: &str) -> Value {
    let mut object = Map::new();
    object.insert("kind".to_owned(), "report".into());
    object.insert("file".to_owned(), clean(shown).into());
    object.insert("place".to_owned(), place.into());
    object.insert("successful".to_owned(), report.successful().into());
    object.insert("failed".to_owned(), report.failed().into());
    if let Ok(Value::Object(members)) = serde_json::to_value(report) {
        object.extend(members);
    }
    Value::Object(object)
}

fn json_sums(sums: &Sums) -> Vec<Value> {
    let counts = |sum: &Sum| {
        json!({
            "reports": sum.reports, "successful": sum.successful, "failed": sum.failed,
            "failed-percent": (sum.failed_percent() * 100.0).round() / 100.0,
        })
    };
    let with = |mut head: Value, tail: Value| {
        if let (Some(head), Value::Object(tail)) = (head.as_object_mut(), tail) {
            head.extend(tail);
        }
        head
    };
    let mut lines = Vec::new();
    for (name, sum) in ordered(&sums.organizations) {
        lines.push(with(json!({ "kind": "organization", "from": name }), counts(sum)));
    }
    for ((domain, policy), sum) in ordered(&sums.domains) {
        let head = json!({ "kind": "policy-domain", "policy-domain": domain, "policy-type": policy });
        lines.push(with(head, counts(sum)));
    }
    for (failed, sum) in &sums.failures {
        let tail = serde_json::to_value(failed).unwrap_or_default();
        let head = json!({
            "kind": "failure", "sessions": sum.sessions, "reported-by": sum.organizations,
            "policy-domains": sum.domains,
        });
        lines.push(with(head, tail));
    }
    let head = json!({ "kind": "total", "duplicates": sums.duplicates, "cut": sums.cut });
    lines.push(with(head, counts(&sums.total)));
    lines
}
