//! A report as mail (RFC 8460 §5.3): two parts, headers, DKIM signature, envelope.
//!
//! Made from the report's text alone, so that it can be made again after a restart and says what
//! the text says (RFC 8460 §5.6). Pure but for the signature's timestamp. Called by `send`.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

use super::Options;
use crate::mail::header::date;
use crate::mail::mime::{Encoding, Header, Part, multipart};
use crate::mail::{BodyType, Domain, Envelope, Mailbox, Notify, Recipient, ReversePath, TlsRequest};
use crate::queue::QueueId;
use crate::tlsrpt::report::{Label, Totals};

/// The media type of a compressed report (RFC 8460 §6.5).
pub(super) const GZIP_TYPE: &str = "application/tlsrpt+gzip";

/// What one report mail is made of.
pub(super) struct MailFacts<'a> {
    pub(super) options: &'a Options,
    pub(super) report_domain: &'a Domain,
    /// The report's text.
    pub(super) json: &'a str,
    pub(super) to: &'a Mailbox,
    /// For Message-ID.
    pub(super) queue_id: QueueId,
    pub(super) now: Timestamp,
    /// For the MIME boundary.
    pub(super) random: u64,
}

/// Composes and signs.
///
/// # Errors
/// One sentence: the text is damaged, or the key does not sign.
pub(super) fn compose(facts: &MailFacts<'_>) -> Result<(Envelope, Vec<u8>), String> {
    let (label, totals) = Label::read(facts.report_domain, facts.json)
        .map_err(|error| format!("the stored report is damaged: {error}"))?;
    let options = facts.options;
    let file_name = label.file_name();
    let report = Part {
        content_type: GZIP_TYPE.to_owned(),
        encoding: Encoding::Base64,
        fields: vec![("Content-Disposition", format!("attachment; filename=\"{file_name}\""))],
        body: gzip(facts.json.as_bytes()),
    };
    let multipart = multipart(vec![Part::text(words(&label, &totals, &file_name)), report], facts.random);
    let mut unsigned = Header::new()
        .field("From", &format!("<{}>", options.from))
        .field("To", &format!("<{}>", facts.to))
        .field("Subject", &label.subject())
        .field("Date", &date(facts.now))
        .field("Message-ID", &format!("<{}.tlsrpt@{}>", facts.queue_id, options.hostname))
        .field("TLS-Report-Domain", label.report_domain.as_str())
        .field("TLS-Report-Submitter", &label.submitter())
        // RFC 8460 §3: report mail goes out although TLS fails; RFC 8689 §3 tells later relays.
        .field("TLS-Required", "No")
        // RFC 3834 §5: nobody's vacation responder should answer.
        .field("Auto-Submitted", "auto-generated")
        .field("MIME-Version", "1.0")
        .field(
            "Content-Type",
            &format!("multipart/report; report-type=\"tlsrpt\"; boundary=\"{}\"", multipart.boundary),
        )
        .into_bytes();
    unsigned.extend_from_slice(b"\r\n");
    unsigned.extend_from_slice(&multipart.body);
    let mut content = Vec::new();
    for signer in &options.dkim {
        // RFC 6376 §5.4: no signature is over another.
        content.extend(signer.sign(&unsigned).map_err(|error| format!("DKIM: {error}"))?);
    }
    content.extend_from_slice(&unsigned);
    let smtputf8 = options.from.needs_smtputf8() || facts.to.needs_smtputf8();
    let envelope = Envelope {
        reverse_path: ReversePath::Mailbox(options.from.clone()),
        // RFC 8460 §5.5: an undeliverable report is dropped without a notice.
        recipients: vec![Recipient { path: facts.to.clone(), notify: Some(Notify::Never), orcpt: None }],
        body: if smtputf8 { BodyType::EightBitMime } else { BodyType::SevenBit },
        smtputf8,
        ret: None,
        envid: None,
        tls: TlsRequest::NotRequired,
    };
    Ok((envelope, content))
}

/// The part for human readers.
fn words(label: &Label, totals: &Totals, file_name: &str) -> String {
    format!(
        "This is a TLS report (RFC 8460) of\r\n    {}\r\nfor mail to\r\n    {}\r\n\
         from {} to {}.\r\n\r\n\
         Sessions that met their policy: {}\r\n\
         Sessions that failed:           {}\r\n\r\n{}\
         The report is attached as\r\n    {file_name}\r\n\
         It was made by the mail system itself. Questions are answered by\r\n    {}\r\n",
        crate::mail::header::sanitize(&label.organization_name),
        label.report_domain,
        label.start,
        label.end,
        totals.successful,
        totals.failed,
        if totals.cut {
            "There was more than a report should hold: some details or policy texts are\r\n\
             left out where it says so. All sessions are counted.\r\n\r\n"
        } else {
            ""
        },
        label.contact_info,
    )
}

/// gzip without name and time, so that the same text makes the same bytes.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("a Vec takes every byte")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use jiff::civil::Date;

    use super::*;
    use crate::mail::mime::reader::Entity;
    use crate::tlsrpt::report::{Report, Tally, report_id};
    use crate::tlsrpt::{AppliedPolicy, PolicyType, SessionResult};

    fn json(domain: &Domain, contact: &Mailbox, organization: &str) -> String {
        let mut tally = Tally::new(domain.clone());
        tally.fold(&SessionResult {
            report_domain: domain.clone(),
            policy: AppliedPolicy {
                policy_type: PolicyType::NoPolicyFound,
                policy_domain: domain.clone(),
                policy_string: [].into(),
                mx_host: [].into(),
            },
            failures: vec![],
        });
        let day = Date::new(2026, 11, 21).unwrap();
        Report::make(tally, day, organization, contact, report_id(day, 1, domain, contact)).render()
    }

    fn options(dkim: Vec<super::super::Signer>) -> Options {
        let mailbox = |text: &str| Mailbox::parse(text).unwrap();
        let mut options = Options::new(
            Domain::parse("relay.sender.example").unwrap(),
            "Sender".to_owned(),
            mailbox("postmaster@sender.example"),
            mailbox("tlsrpt@sender.example"),
        );
        options.dkim = dkim;
        options
    }

    fn mail(options: &Options, domain: &str, to: &str, organization: &str) -> (Envelope, Vec<u8>, String) {
        let domain = Domain::parse(domain).unwrap();
        let json = json(&domain, &options.contact_info, organization);
        let (envelope, content) = compose(&MailFacts {
            options,
            report_domain: &domain,
            json: &json,
            to: &Mailbox::parse(to).unwrap(),
            queue_id: QueueId { node: 1, sequence: 10 },
            now: "2026-11-22T01:02:03Z".parse().unwrap(),
            random: 7,
        })
        .unwrap();
        (envelope, content, json)
    }

    #[test]
    fn report_mail_has_the_form_of_the_rfc() {
        let (envelope, content, json) = mail(&options(vec![]), "example.org", "a@rua.example", "Sender");
        assert!(content.is_ascii());
        assert!(content.split(|&b| b == b'\n').all(|line| line.len() <= 77));
        let mail = Entity::read(&content);
        for (name, want) in [
            ("From", "<tlsrpt@sender.example>"),
            ("To", "<a@rua.example>"),
            (
                "Subject",
                "Report Domain: example.org Submitter: sender.example Report-ID: \
                 <20261121.0000000000000001.example.org@sender.example>",
            ),
            ("Date", "Sun, 22 Nov 2026 01:02:03 +0000"),
            ("Message-ID", "<1-0000000A.tlsrpt@relay.sender.example>"),
            ("TLS-Report-Domain", "example.org"),
            ("TLS-Report-Submitter", "sender.example"),
            ("TLS-Required", "No"),
            ("Auto-Submitted", "auto-generated"),
            ("MIME-Version", "1.0"),
            ("Content-Type", "multipart/report; report-type=\"tlsrpt\"; boundary=\"=_0000000000000007\""),
        ] {
            assert_eq!(mail.field(name), Some(want));
        }
        assert_eq!(mail.parts.len(), 2);
        assert_eq!(mail.parts[0].kind(), "text/plain");
        assert!(mail.parts[0].text().contains("Sessions that met their policy: 1\r\n"));
        assert_eq!(mail.parts[1].kind(), "application/tlsrpt+gzip");
        assert_eq!(
            mail.parts[1].field("Content-Disposition"),
            Some("attachment; filename=\"sender.example!example.org!1795219200!1795305599.json.gz\"")
        );
        let mut text = String::new();
        assert_eq!(mail.parts[1].body[..2], [0x1f, 0x8b]);
        GzDecoder::new(&mail.parts[1].body[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, json);
        assert_eq!(
            envelope,
            Envelope {
                reverse_path: ReversePath::parse("<tlsrpt@sender.example>").unwrap(),
                recipients: vec![Recipient {
                    path: Mailbox::parse("a@rua.example").unwrap(),
                    notify: Some(Notify::Never),
                    orcpt: None,
                }],
                body: BodyType::SevenBit,
                smtputf8: false,
                ret: None,
                envid: None,
                tls: TlsRequest::NotRequired,
            }
        );
    }

    #[test]
    fn an_organization_with_umlauts_stays_seven_bit_on_the_wire() {
        let (_, content, _) = mail(&options(vec![]), "example.org", "a@rua.example", "Büro\r\nBcc: x");
        assert!(content.is_ascii());
        let mail = Entity::read(&content);
        assert!(mail.parts[0].text().contains("Büro  Bcc: x"), "{}", mail.parts[0].text());
        assert_eq!(mail.field("Bcc"), None);
    }

    #[test]
    fn long_domains_are_folded_between_words() {
        let long = [&"a".repeat(60)[..]; 4].join(".");
        let (_, content, _) = mail(&options(vec![]), &long, "a@rua.example", "Sender");
        let mail = Entity::read(&content);
        let subject = mail.field("Subject").unwrap();
        assert!(subject.starts_with(&format!("Report Domain: {long} Submitter:")), "{subject}");
    }

    #[test]
    fn utf8_targets_are_declared() {
        let (envelope, content, _) = mail(&options(vec![]), "example.org", "grün@rua.example", "Sender");
        assert!(envelope.smtputf8);
        assert_eq!(envelope.body, BodyType::EightBitMime);
        assert_eq!(Entity::read(&content).field("To"), Some("<grün@rua.example>"));
    }

    #[test]
    fn a_signature_stands_in_front_of_the_same_mail() {
        let signer = super::super::dkim::test_signer("sender.example");
        let (_, unsigned, _) = mail(&options(vec![]), "example.org", "a@rua.example", "Sender");
        let (_, signed, _) = mail(&options(vec![signer]), "example.org", "a@rua.example", "Sender");
        assert!(signed.starts_with(b"DKIM-Signature: v=1; a=ed25519-sha256; s=tlsrpt; d=sender.example;"));
        assert!(signed.ends_with(&unsigned));
        super::super::dkim::tests::signed_data(std::str::from_utf8(&signed).unwrap());
    }

    #[test]
    fn two_keys_make_two_signatures_over_the_same_mail() {
        use super::super::dkim::key::{Algorithm, generate};
        use super::super::dkim::tests::verifies;
        let (rsa, ed) = (generate(Algorithm::Rsa).unwrap(), generate(Algorithm::Ed25519).unwrap());
        let signer = |selector: &str, pem: &str| {
            let domain = Domain::parse("sender.example").unwrap();
            super::super::Signer::from_pem(domain, selector, pem.as_bytes()).unwrap()
        };
        let (_, unsigned, _) = mail(&options(vec![]), "example.org", "a@rua.example", "Sender");
        let both = vec![signer("one", &rsa.pem), signer("two", &ed.pem)];
        let (_, signed, _) = mail(&options(both), "example.org", "a@rua.example", "Sender");
        let text = std::str::from_utf8(&signed).unwrap();
        let second = text.rfind("DKIM-Signature: ").unwrap();
        assert!(text.starts_with("DKIM-Signature: v=1; a=rsa-sha256; s=one; "));
        assert!(text[second..].starts_with("DKIM-Signature: v=1; a=ed25519-sha256; s=two; "));
        assert_eq!(text.matches("DKIM-Signature:").count(), 2);
        let of_first = [&text[..second], std::str::from_utf8(&unsigned).unwrap()].concat();
        assert!(verifies(&of_first, &rsa.public) && verifies(&text[second..], &ed.public));
        // Whole as it goes out: the other signature is not in the way of either.
        assert!(verifies(text, &rsa.public) && !verifies(text, &ed.public));
    }

    #[test]
    fn a_damaged_text_is_an_error_and_no_mail() {
        let options = options(vec![]);
        let error = compose(&MailFacts {
            options: &options,
            report_domain: &Domain::parse("example.org").unwrap(),
            json: "{",
            to: &options.from,
            queue_id: QueueId { node: 1, sequence: 1 },
            now: Timestamp::UNIX_EPOCH,
            random: 0,
        });
        assert!(error.unwrap_err().contains("damaged"));
    }
}
