//! What a domain's owner publishes for MTA-STS and TLS-RPT: the two TXT records, the policy file, and
//! what makes a web server serve it (RFC 8461 §3, RFC 8460 §3).
//!
//! Pure. The policy is read by the parser that reads everybody's, so what is printed is what senders
//! understand. Never asks DNS. Called by `cli::publish`.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{Mode, PolicyError, StsPolicy};
use crate::mail::Domain;

/// Octets of a character-string of a TXT record at most (RFC 1035 §3.3).
const STRING_BYTES_MAX: usize = 255;
/// How long resolvers may keep the records: soon enough for a change, seconds.
const RECORD_TTL: u32 = 3600;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The policy domain.
    pub domain: Domain,
    /// `mx` values, as written.
    pub mx: Vec<String>,
    /// The mode.
    pub mode: Mode,
    /// Seconds.
    pub max_age: u32,
    /// Report targets, checked to be usable; none: no report record.
    pub rua: Vec<String>,
}

/// What to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The policy's id.
    pub id: String,
    /// Owner name and text of each TXT record; the policy's first.
    pub records: Vec<(String, String)>,
    /// The policy as senders read it.
    pub policy: StsPolicy,
    /// Where the policy must be served.
    pub url: String,
    /// Web server and what to paste into its configuration.
    pub snippets: Vec<(&'static str, String)>,
}

impl Publication {
    /// Makes everything. The id is `now`, so that each publication has a new one.
    ///
    /// # Errors
    /// What senders would not accept of the policy.
    pub fn new(wanted: &Wanted, now: Timestamp) -> Result<Self, PolicyError> {
        let domain = &wanted.domain;
        let mut text = format!("version: STSv1\nmode: {}\n", wanted.mode);
        for mx in &wanted.mx {
            // A line end in a value would be another field.
            if mx.contains(char::is_control) {
                return Err(PolicyError(format!("mx {mx:?} is no host name")));
            }
            text.push_str(&format!("mx: {mx}\n"));
        }
        text.push_str(&format!("max_age: {}\n", wanted.max_age));
        let policy = StsPolicy::parse(text.as_bytes())?;
        // RFC 8461 §3.1: letters and digits, 32 at most.
        let id = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut records = vec![(format!("_mta-sts.{domain}"), format!("v=STSv1; id={id};"))];
        if !wanted.rua.is_empty() {
            let targets = wanted.rua.join(",");
            records.push((format!("_smtp._tls.{domain}"), format!("v=TLSRPTv1; rua={targets}")));
        }
        let host = format!("mta-sts.{domain}");
        let snippets =
            vec![("nginx", nginx(&host, &text)), ("Apache", apache(&host)), ("Caddy", caddy(&host, &text))];
        Ok(Self { id, records, policy, url: format!("https://{host}/.well-known/mta-sts.txt"), snippets })
    }

    /// The records as lines of a zone file.
    pub fn zone_lines(&self) -> Vec<String> {
        self.records
            .iter()
            .map(|(name, text)| format!("{name}. {RECORD_TTL} IN TXT {}", character_strings(text)))
            .collect()
    }
}

/// Quoted, escaped, and split where a string is too long (RFC 1035 §3.3, §5.1).
fn character_strings(text: &str) -> String {
    let pieces = text.as_bytes().chunks(STRING_BYTES_MAX);
    let quoted: Vec<String> = pieces
        .map(|piece| {
            let mut out = String::from("\"");
            for &byte in piece {
                match byte {
                    b'"' | b'\\' => {
                        out.push('\\');
                        out.push(char::from(byte));
                    }
                    b' '..=b'~' => out.push(char::from(byte)),
                    // Writing to a String cannot fail.
                    other => drop(write!(out, "\\{other:03}")),
                }
            }
            out.push('"');
            out
        })
        .collect();
    quoted.join(" ")
}

fn nginx(host: &str, policy: &str) -> String {
    // nginx reads \n within quotes as a line end.
    let body = policy.replace('\n', "\\n");
    format!(
        "server {{
    listen 443 ssl;
    listen [::]:443 ssl;
    server_name {host};
    ssl_certificate /etc/letsencrypt/live/{host}/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/{host}/privkey.pem;
    location = /.well-known/mta-sts.txt {{
        default_type text/plain;
        return 200 \"{body}\";
    }}
}}
"
    )
}

fn apache(host: &str) -> String {
    format!(
        "# the policy in /var/www/{host}/.well-known/mta-sts.txt
<VirtualHost *:443>
    ServerName {host}
    DocumentRoot /var/www/{host}
    SSLEngine on
    SSLCertificateFile /etc/letsencrypt/live/{host}/fullchain.pem
    SSLCertificateKeyFile /etc/letsencrypt/live/{host}/privkey.pem
    <Directory /var/www/{host}>
        Require all granted
    </Directory>
    <Location /.well-known/mta-sts.txt>
        ForceType text/plain
    </Location>
</VirtualHost>
"
    )
}

fn caddy(host: &str, policy: &str) -> String {
    let body: String = policy.lines().map(|line| format!("        {line}\n")).collect();
    format!(
        "{host} {{
    header /.well-known/mta-sts.txt Content-Type text/plain
    respond /.well-known/mta-sts.txt <<POLICY
{body}        POLICY 200
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            domain: Domain::parse("a.example").unwrap(),
            mx: vec!["mx.a.example".to_owned(), "*.b.example".to_owned()],
            mode: Mode::Testing,
            max_age: 604_800,
            rua: vec!["mailto:tls@a.example".to_owned(), "https://r.example/tls".to_owned()],
        }
    }

    fn publish(wanted: &Wanted) -> Result<Publication, PolicyError> {
        Publication::new(wanted, "2026-01-10T12:03:04.5Z".parse().unwrap())
    }

    #[test]
    fn records_and_policy_are_what_senders_read() {
        let made = publish(&wanted()).unwrap();
        assert_eq!(
            made.zone_lines(),
            [
                "_mta-sts.a.example. 3600 IN TXT \"v=STSv1; id=20260110T120304Z;\"",
                "_smtp._tls.a.example. 3600 IN TXT \
                 \"v=TLSRPTv1; rua=mailto:tls@a.example,https://r.example/tls\"",
            ]
        );
        let record = crate::sts::record::parse(&[&made.records[0].1]).unwrap();
        assert_eq!(record.id, made.id);
        assert_eq!(
            made.policy.text(),
            "version: STSv1\nmode: testing\nmx: mx.a.example\nmx: *.b.example\nmax_age: 604800\n"
        );
        assert_eq!(made.url, "https://mta-sts.a.example/.well-known/mta-sts.txt");
    }

    #[test]
    fn snippets_hold_the_policy() {
        let made = publish(&wanted()).unwrap();
        let [(_, nginx), (_, apache), (_, caddy)] = &made.snippets[..] else { panic!("three") };
        let want = "server {
    listen 443 ssl;
    listen [::]:443 ssl;
    server_name mta-sts.a.example;
    ssl_certificate /etc/letsencrypt/live/mta-sts.a.example/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/mta-sts.a.example/privkey.pem;
    location = /.well-known/mta-sts.txt {
        default_type text/plain;
        return 200 \"version: STSv1\\nmode: testing\\nmx: mx.a.example\\nmx: *.b.example\\nmax_age: 604800\\n\";
    }
}
";
        assert_eq!(nginx, want);
        let want = "mta-sts.a.example {
    header /.well-known/mta-sts.txt Content-Type text/plain
    respond /.well-known/mta-sts.txt <<POLICY
        version: STSv1
        mode: testing
        mx: mx.a.example
        mx: *.b.example
        max_age: 604800
        POLICY 200
}
";
        assert_eq!(caddy, want);
        assert!(
            apache.contains("ServerName mta-sts.a.example\n") && apache.contains("ForceType text/plain\n")
        );
    }

    #[test]
    fn what_senders_would_not_accept_is_refused() {
        let refused = |change: &dyn Fn(&mut Wanted)| {
            let mut wanted = wanted();
            change(&mut wanted);
            publish(&wanted).unwrap_err().0
        };
        assert!(refused(&|wanted| wanted.mx.clear()).contains("mx is missing"));
        for bad in ["192.0.2.1", "mx.*.example", "*", "münchen.example", "a b", "a.example\nmode: none"] {
            assert!(refused(&|wanted| wanted.mx = vec![bad.to_owned()]).contains("mx"), "{bad}");
        }
        let none = Wanted { mx: Vec::new(), mode: Mode::None, rua: Vec::new(), ..wanted() };
        let made = publish(&none).unwrap();
        assert_eq!(made.records.len(), 1);
        assert_eq!(made.policy.text(), "version: STSv1\nmode: none\nmax_age: 604800\n");
    }

    #[test]
    fn long_records_are_split_and_quotes_escaped() {
        let long = format!("v=TLSRPTv1; rua=https://r.example/{}", "x".repeat(300));
        let strings = character_strings(&long);
        assert_eq!(strings.matches("\" \"").count(), 1);
        assert_eq!(strings.replace("\" \"", "").trim_matches('"'), long);
        assert_eq!(character_strings("a\"b\\c"), r#""a\"b\\c""#);
    }
}
