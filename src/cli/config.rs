//! `stsrelay config check` and `config show`: nothing is started or changed. `check` asks DNS for the key
//! records of mailed reports, if there is a key.

use clap::Subcommand;
use serde_json::json;

use super::check::block_on;
use super::{ConfigArgs, Exit, Failure, JsonArg, output, output::Output};
use crate::config::{ConfigError, Doors, Loaded, check, doors, load, settings};
use crate::net::{Clock as _, SystemClock};
use crate::reporting::{Signer, keys};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Check everything, read all files it names, and tell what has no effect
    ///
    /// Also whether the DKIM keys in DNS fit those that sign mailed reports.
    Check {
        /// Ask nobody: leave out what DNS says
        #[arg(long)]
        offline: bool,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Print the effective configuration with the origin of each value
    Show(JsonArg),
}

pub(super) fn run(verb: &Verb, args: &ConfigArgs) -> Result<Exit, Failure> {
    let loaded = args.load()?;
    match verb {
        Verb::Check { offline, json } => run_check(&loaded, *offline, json.json),
        Verb::Show(json) => run_show(&loaded, json.json),
    }
}

/// What DNS says of our keys against what we sign with; nothing where there is no key.
fn key_warnings(loaded: &Loaded) -> Result<Vec<ConfigError>, Failure> {
    // No errors were found, so what is missing here are credentials that only the service sees: noted.
    let Ok(settings) = settings(loaded) else { return Ok(Vec::new()) };
    let reporting = settings.reporting;
    if !reporting.enabled || reporting.dkim.is_empty() {
        return Ok(Vec::new());
    }
    let Ok(Doors { dns, .. }) = doors(loaded) else { return Ok(Vec::new()) };
    output::progress("asking for the DKIM keys ...");
    let found = block_on(keys::check(&dns, &reporting.dkim))?;
    let second = loaded.config.tlsrpt.dkim_second_selector.as_deref();
    let warning = |(signer, text): (&Signer, String)| match second == Some(signer.selector()) {
        true => loaded.error("tlsrpt.dkim_second_key_file", text),
        false => loaded.error("tlsrpt.dkim_key_file", text),
    };
    Ok(found.into_iter().map(warning).collect())
}

fn run_check(loaded: &Loaded, offline: bool, as_json: bool) -> Result<Exit, Failure> {
    let found = check::check(loaded, SystemClock.now());
    let warnings = match offline || !found.errors.is_empty() {
        true => Vec::new(),
        false => key_warnings(loaded)?,
    };
    let mut out = Output::new();
    if as_json {
        let all = [("error", &found.errors), ("warning", &warnings), ("note", &found.notes)];
        for (severity, findings) in all {
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
    for warning in &warnings {
        out.line(&format!("warning: {warning}"))?;
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
