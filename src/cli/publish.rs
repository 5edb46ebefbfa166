//! `stsrelay publish`: what a domain's owner has to publish, ready to paste. Needs no daemon and
//! changes nothing.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use serde_json::json;

use super::check::{block_on, target_trouble};
use super::output::{Output, wrap};
use super::{ConfigArgs, Exit, Failure, JsonArg, output};
use crate::config::doors;
use crate::mail::Domain;
use crate::net::dns::{Dns as _, Lookup};
use crate::net::{Clock as _, SystemClock};
use crate::sts::Mode;
use crate::sts::check::Mismatch;
use crate::sts::publish::{Publication, Wanted};
use crate::tlsrpt::record::Rua;

/// Two weeks: RFC 8461 §3.2 expects weeks.
const MAX_AGE_DEFAULT: u32 = 14 * 86_400;

/// What to publish.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The domain of the addresses
    domain: Domain,
    /// Names of the mail hosts as in the MX records; `*.example.org` stands for any one label
    #[arg(long, value_name = "HOST", num_args = 1.., required_if_eq_any = [("mode", "testing"), ("mode", "enforce")])]
    mx: Vec<String>,
    /// testing: failures are only reported; enforce: mail is protected; none: withdraw a policy
    #[arg(long, value_parser = PossibleValuesParser::new(["testing", "enforce", "none"]).map(|word| mode(&word)))]
    mode: Mode,
    /// How long senders keep the policy
    #[arg(long, value_name = "SECONDS", default_value_t = MAX_AGE_DEFAULT)]
    max_age: u32,
    /// Where senders send their daily reports: mailto:tls@example.org or an https: URL
    #[arg(long, value_name = "URI", num_args = 1.., value_parser = target)]
    rua: Vec<String>,
    /// Do not compare with the MX records in DNS
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    json: JsonArg,
}

fn mode(word: &str) -> Mode {
    match word {
        "enforce" => Mode::Enforce,
        "testing" => Mode::Testing,
        _ => Mode::None,
    }
}

fn target(text: &str) -> Result<String, String> {
    // RFC 8460 §3: these separate targets and fields, so they must be percent-encoded.
    if text.contains([',', '!', ';']) {
        return Err("\",\", \"!\" and \";\" must be percent-encoded".to_owned());
    }
    text.parse::<Rua>().map(|target| target.to_string()).map_err(|()| target_trouble(text).to_owned())
}

pub(super) fn run(arguments: Arguments, args: &ConfigArgs) -> Result<Exit, Failure> {
    let Arguments { domain, mx, mode, max_age, rua, offline, json, .. } = arguments;
    let wanted = Wanted { domain, mx, mode, max_age, rua };
    let made = Publication::new(&wanted, SystemClock.now())
        .map_err(|error| Failure::new(Exit::Usage, format!("such a policy is not valid: {error}")))?;
    let mut warnings: Vec<String> = made.policy.warnings().iter().map(|&text| text.to_owned()).collect();
    if wanted.rua.is_empty() {
        warnings
            .push("without --rua nobody tells you about failures; testing then tells you nothing".to_owned());
    }
    if !offline && mode != Mode::None {
        warnings.extend(compare(&wanted, &made, args)?);
    }
    let mut out = Output::new();
    if json.json {
        out.json(&json!({
            "domain": wanted.domain,
            "id": made.id,
            "records": made.records.iter().map(|(name, text)| json!({ "name": name, "txt": text })).collect::<Vec<_>>(),
            "url": made.url,
            "policy": made.policy.text(),
            "snippets": made.snippets.iter().map(|(server, text)| json!({ "server": server, "text": text })).collect::<Vec<_>>(),
            "warnings": warnings,
        }))?;
    } else {
        text(&made, &warnings).lines().try_for_each(|line| out.line(line))?;
    }
    out.finish()?;
    Ok(Exit::Fine)
}

/// Everything to paste, each part with what to do with it. Pasted lines are never broken.
fn text(made: &Publication, warnings: &[String]) -> String {
    let mut text = String::new();
    for warning in warnings {
        for line in wrap("warning: ", warning) {
            text.push_str(&format!("{line}\n"));
        }
    }
    if !warnings.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!("1. The policy, to be served as text/plain under\n   {}\n\n", made.url));
    text.push_str(made.policy.text());
    text.push_str("\n2. A web server that does so; one of these.\n");
    for (server, snippet) in &made.snippets {
        text.push_str(&format!("\n# {server}\n{snippet}"));
    }
    text.push_str(
        "\n3. The records, once the policy is served; a new id with each change of the policy.\n\n",
    );
    for line in made.zone_lines() {
        text.push_str(&format!("{line}\n"));
    }
    text
}

/// How the policy and the MX records of DNS differ, as warnings.
fn compare(wanted: &Wanted, made: &Publication, args: &ConfigArgs) -> Result<Vec<String>, Failure> {
    let loaded = args.load()?;
    let doors = doors(&loaded).map_err(Failure::config)?;
    output::progress(&format!("asking for the MX records of {} ...", wanted.domain));
    let lookup = block_on(doors.dns.mx(&wanted.domain))?;
    let hosts: Vec<Domain> = match &lookup {
        Lookup::Found(answer) => {
            answer.records.iter().filter_map(|mx| Domain::parse_a_label(&mx.exchange).ok()).collect()
        }
        Lookup::NoData(_) => vec![wanted.domain.clone()],
        Lookup::NxDomain(_) => return Ok(vec![format!("{} does not exist in DNS", wanted.domain)]),
        Lookup::Failed(failure) => {
            return Ok(vec![format!("not compared with the MX records: {failure} (--offline skips this)")]);
        }
    };
    let mismatch = Mismatch::new(&made.policy, &hosts);
    let unlisted = mismatch.unlisted.iter().map(|host| {
        format!("the MX records name {host}, which no --mx covers: under enforce nothing is delivered to it")
    });
    let unused =
        mismatch.unused.iter().map(|pattern| format!("--mx {pattern} covers no host of the MX records"));
    Ok(unlisted.chain(unused).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_come_in_the_order_to_publish_them() {
        let wanted = Wanted {
            domain: Domain::parse("a.example").unwrap(),
            mx: vec!["mx.a.example".to_owned()],
            mode: Mode::Testing,
            max_age: MAX_AGE_DEFAULT,
            rua: vec!["mailto:tls@a.example".to_owned()],
        };
        let made = Publication::new(&wanted, "2026-01-10T12:00:00Z".parse().unwrap()).unwrap();
        let text = text(&made, &["look".to_owned()]);
        let start = "\
warning: look

1. The policy, to be served as text/plain under
   https://mta-sts.a.example/.well-known/mta-sts.txt

version: STSv1
mode: testing
mx: mx.a.example
max_age: 1209600

2. A web server that does so; one of these.

# nginx
server {
";
        assert!(text.starts_with(start), "{text}");
        let end = "
3. The records, once the policy is served; a new id with each change of the policy.

_mta-sts.a.example. 3600 IN TXT \"v=STSv1; id=20260110T120000Z;\"
_smtp._tls.a.example. 3600 IN TXT \"v=TLSRPTv1; rua=mailto:tls@a.example\"
";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn targets_are_checked() {
        assert_eq!(target("mailto:tls@a.example").unwrap(), "mailto:tls@a.example");
        assert!(target("http://a.example/").unwrap_err().contains("https:"));
        assert!(target("https://a.example/a,b").unwrap_err().contains("percent-encoded"));
        assert!(target("mailto:nobody").is_err());
    }
}
