//! What the demo prints, within 100 columns.

use std::io::IsTerminal as _;

use serde_json::Value;

use crate::internet::Seen;
use crate::scenes::Became;

const WIDTH: usize = 100;

/// What became of each message: the domain and what is there, then how or why.
pub fn mail(seen: &[Seen]) -> String {
    let coloured = std::io::stdout().is_terminal();
    let mut text = format!("{:<11}{:<17}{}\n", "mail", "to", "what is there, and what happened");
    text.push_str(&rule());
    for seen in seen {
        let (word, colour) = match seen.became {
            Became::Delivered => ("delivered", "32"),
            Became::Waits => ("NOT SENT", "31"),
            Became::Bounced => ("bounced", "33"),
        };
        let word = format!("{word:<11}");
        let word = if coloured { format!("\x1b[{colour}m{word}\x1b[0m") } else { word };
        text.push_str(&format!("{word}{:<17}{}\n", seen.domain, seen.about));
        let told = match (seen.became, seen.host_saw_envelope) {
            (Became::Waits, false) => {
                format!("{} The host saw no envelope; it waits for a retry.", ended(&seen.how))
            }
            (Became::Waits, true) => format!("{} BUT A HOST SAW THE ENVELOPE.", ended(&seen.how)),
            _ => seen.how.clone(),
        };
        text.push_str(&indented(&told, 28));
    }
    text
}

/// The notices at the sender's own host.
pub fn bounces(bounces: &[(String, String)]) -> String {
    let mut text = String::from("In your mailbox\n");
    text.push_str(&rule());
    for (subject, status) in bounces {
        text.push_str(&format!("{subject}: {status}\n"));
    }
    text
}

/// A line for each policy of each report.
pub fn reports(reports: &[(&str, Value)]) -> String {
    let mut text = format!(
        "{:<17}{:<17}{:>5}{:>8}  {}\n",
        "TLS reports", "policy", "good", "failed", "failures in tomorrow's report"
    );
    text.push_str(&rule());
    for (domain, report) in reports {
        for (nth, entry) in report["policies"].as_array().into_iter().flatten().enumerate() {
            let policy = &entry["policy"];
            let count = |key: &str| entry["summary"][key].as_u64().unwrap_or_default();
            let mut failures: Vec<&str> = entry["failure-details"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|detail| detail["result-type"].as_str())
                .collect();
            failures.dedup();
            let domain = if nth == 0 { *domain } else { "" };
            text.push_str(&format!(
                "{domain:<17}{:<17}{:>5}{:>8}  {}\n",
                policy["policy-type"].as_str().unwrap_or_default(),
                count("total-successful-session-count"),
                count("total-failure-session-count"),
                failures.join(", ")
            ));
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }
    text
}

fn rule() -> String {
    format!("{}\n", "-".repeat(WIDTH))
}

fn ended(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}

/// Words in lines of [`WIDTH`], each after so many blanks.
fn indented(text: &str, by: usize) -> String {
    let mut lines = String::new();
    let mut line = " ".repeat(by);
    let mut used = by;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > by && used + 1 + length > WIDTH {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line = " ".repeat(by);
            used = by;
        }
        if used > by {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += length;
    }
    lines.push_str(line.trim_end());
    lines.push('\n');
    lines
}
