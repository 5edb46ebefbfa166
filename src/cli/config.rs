//! `stsrelay config check` and `config show`: offline, nothing is started or changed.

use clap::Subcommand;
use serde_json::json;

use super::{ConfigArgs, Exit, Failure, JsonArg, output::Output};
use crate::config::{Loaded, check, load};
use crate::net::{Clock as _, SystemClock};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Check everything, read all files it names, and tell what has no effect
    Check(JsonArg),
    /// Print the effective configuration with the origin of each value
    Show(JsonArg),
}

pub(super) fn run(verb: &Verb, args: &ConfigArgs) -> Result<Exit, Failure> {
    let loaded = args.load()?;
    match verb {
        Verb::Check(json) => run_check(&loaded, json.json),
        Verb::Show(json) => run_show(&loaded, json.json),
    }
}

fn run_check(loaded: &Loaded, as_json: bool) -> Result<Exit, Failure> {
    let found = check::check(loaded, SystemClock.now());
    let mut out = Output::new();
    if as_json {
        for (severity, findings) in [("error", &found.errors), ("note", &found.notes)] {
            for finding in findings {
                out.json(&json!({
                    "severity": severity, "place": finding.place, "key": finding.key, "text": finding.text,
                }))?;
            }
        }
        out.finish()?;
        return Ok(if found.errors.is_empty() { Exit::Fine } else { Exit::Config });
    }
    for note in &found.notes {
        out.line(&format!("note: {note}"))?;
    }
    if found.errors.is_empty() {
        out.line(&format!("{}: the configuration is good", loaded.file.display()))?;
        out.finish()?;
        Ok(Exit::Fine)
    } else {
        out.finish()?;
        Err(Failure::config(found.errors))
    }
}

fn run_show(loaded: &Loaded, as_json: bool) -> Result<Exit, Failure> {
    let mut out = Output::new();
    let mut section = String::new();
    for (key, value) in load::leaves(&loaded.config) {
        let origin = loaded.origin(&key).unwrap_or_else(|| "default".to_owned());
        if as_json {
            out.json(&json!({ "key": key, "value": value, "origin": origin }))?;
            continue;
        }
        let (of, name) = key.rsplit_once('.').unwrap_or(("", &key));
        if of != section {
            let blank = if section.is_empty() { "" } else { "\n" };
            out.line(&match of.split_once('[') {
                Some((array, _)) => format!("{blank}[[{array}]]"),
                None => format!("{blank}[{of}]"),
            })?;
            of.clone_into(&mut section);
        }
        // JSON's strings, numbers and arrays of these are TOML's too.
        let line = if value.is_null() { format!("# {name} is not set") } else { format!("{name} = {value}") };
        out.line(&format!("{line:<56}  # {origin}"))?;
    }
    out.finish()?;
    Ok(Exit::Fine)
}
