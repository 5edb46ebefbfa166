//! `stsrelay report keygen`: a DKIM key for report mail, and what to publish for it. Works offline.
//!
//! Never overwrites a file, and never prints the private key.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::output::{Output, wrap};
use crate::cli::{Exit, Failure, JsonArg};
use crate::mail::Domain;
use crate::reporting::dkim::key::{Algorithm, NewKey, character_strings, generate};

/// What the key is to be.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Kind of key; every receiver knows rsa, so ed25519 is for a second signature
    #[arg(long = "type", value_enum, default_value_t = Kind::Rsa)]
    kind: Kind,
    /// Selector, the key's name in DNS [default: tlsrpt, or tlsrpt-ed25519]
    #[arg(long)]
    selector: Option<String>,
    /// The domain that signs: that of `tlsrpt.from`, or one above it
    #[arg(long)]
    domain: Domain,
    /// Where the private key goes [default: SELECTOR._domainkey.DOMAIN.pem]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    json: JsonArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// RSA of 2048 bits
    Rsa,
    /// Ed25519 (RFC 8463)
    Ed25519,
}

impl Kind {
    fn algorithm(self) -> Algorithm {
        match self {
            Self::Rsa => Algorithm::Rsa,
            Self::Ed25519 => Algorithm::Ed25519,
        }
    }

    /// Selector, and the configuration keys that take selector and file.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Rsa => ("tlsrpt", "dkim_selector", "dkim_key_file"),
            Self::Ed25519 => ("tlsrpt-ed25519", "dkim_second_selector", "dkim_second_key_file"),
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let kind = arguments.kind;
    let selector = arguments.selector.as_deref().unwrap_or(kind.names().0);
    // RFC 6376 §3.1: a selector is one or more labels.
    let selector = Domain::parse_a_label(selector)
        .map_err(|error| Failure::new(Exit::Usage, format!("{selector:?} is not a selector: {error}")))?;
    let name = arguments
        .domain
        .prefixed(&format!("{selector}._domainkey"))
        .map_err(|error| Failure::new(Exit::Usage, format!("selector and domain make no name: {error}")))?;
    let file = arguments.out.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.pem")));
    let NewKey { pem, public } =
        generate(kind.algorithm()).map_err(|text| Failure::new(Exit::Failed, text))?;
    write_new(&file, &pem).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::AlreadyExists => "it exists, and keys are never overwritten".to_owned(),
            _ => error.to_string(),
        };
        Failure::new(Exit::Failed, format!("{}: {why}", file.display()))
    })?;
    // As the configuration wants it, wherever the daemon is started.
    let file = file.canonicalize().unwrap_or(file);
    let record = public.record();
    let mut out = Output::new();
    if arguments.json.json {
        out.json(&json!({
            "type": kind.algorithm().to_string(),
            "selector": selector,
            "domain": arguments.domain,
            "file": file,
            "name": name,
            "txt": record,
            "strings": character_strings(&record),
        }))?;
    } else {
        text(kind, &arguments.domain, &selector, &name, &file, &record)
            .iter()
            .try_for_each(|line| out.line(line))?;
    }
    out.finish()?;
    Ok(Exit::Fine)
}

/// The whole file or none, for its owner alone.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| File::sync_all(&file));
    if written.is_err() {
        // Half a key is of no use and would be in the way.
        let _ = std::fs::remove_file(path);
    }
    written
}

/// What to do with it. Pasted lines are never broken.
fn text(
    kind: Kind,
    domain: &Domain,
    selector: &Domain,
    name: &Domain,
    file: &Path,
    record: &str,
) -> Vec<String> {
    let (_, selector_key, file_key) = kind.names();
    let strings: Vec<String> =
        character_strings(record).iter().map(|string| format!("\"{string}\"")).collect();
    let mut lines = wrap(
        "",
        &format!(
            "The private key is in {}, readable by you alone: give it to the user the daemon runs as.",
            file.display()
        ),
    );
    lines.push(String::new());
    lines.push("1. The public key, in DNS.".to_owned());
    lines.push(String::new());
    lines.push(format!("{name}. 3600 IN TXT ( {} )", strings.join(" ")));
    lines.push(String::new());
    lines.push("2. The configuration, once DNS has it; `stsrelay config check` compares the two.".to_owned());
    lines.push(String::new());
    lines.push("[tlsrpt]".to_owned());
    lines.push(format!("dkim_domain = \"{domain}\""));
    lines.push(format!("{selector_key} = \"{selector}\""));
    lines.push(format!("{file_key} = {:?}", file.display().to_string()));
    lines.push(String::new());
    lines.extend(wrap(
        "3. ",
        &format!(
            "DMARC and receivers of reports want tlsrpt.from and tlsrpt.contact_info at {domain} or below it, \
             so that the signature is the sender's own; and the SPF record of the domain of tlsrpt.from, \
             which is the envelope sender too, should name the addresses this relay sends from."
        ),
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_publish_is_told_in_lines_to_paste() {
        let domain = |text: &str| Domain::parse(text).unwrap();
        let record = format!("v=DKIM1; k=ed25519; s=*; p={}", "A".repeat(300));
        let lines = text(
            Kind::Ed25519,
            &domain("example.org"),
            &domain("s1"),
            &domain("s1._domainkey.example.org"),
            Path::new("/etc/k.pem"),
            &record,
        );
        let paste = format!(
            "s1._domainkey.example.org. 3600 IN TXT ( \"{}\" \"{}\" )",
            &record[..255],
            &record[255..]
        );
        assert!(lines.contains(&paste), "{lines:#?}");
        for line in ["dkim_second_selector = \"s1\"", "dkim_second_key_file = \"/etc/k.pem\""] {
            assert!(lines.iter().any(|found| found == line), "{lines:#?}");
        }
        assert!(lines.iter().filter(|line| **line != paste).all(|line| line.chars().count() <= 100));
    }
}
