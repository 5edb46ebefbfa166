//! The Received field we put in front of a message (RFC 5321 §4.4).
//!
//! Pure. Names the client by its EHLO name and its address, the protocol as RFC 3848 and RFC 6531
//! §4.3 register it, the cipher (RFC 8314 §4.3), and a recipient only when there is no other, so that
//! nobody learns of a hidden copy (RFC 5321 §7.2).

use std::fmt::Write;
use std::net::IpAddr;

use jiff::Timestamp;

use crate::mail::{Destination, Domain, Recipient, header};
use crate::net::tls::ServerFacts;
use crate::queue::QueueId;

/// What the field tells.
#[derive(Debug)]
pub(super) struct Received<'a> {
    /// The EHLO or HELO argument, and where the connection came from; `None`: nobody shall know.
    pub client: Option<(&'a str, IpAddr)>,
    /// Our name.
    pub hostname: &'a Domain,
    /// EHLO, not HELO.
    pub esmtp: bool,
    /// The TLS session, if there is one.
    pub tls: Option<&'a ServerFacts>,
    /// After AUTH.
    pub authenticated: bool,
    /// `MAIL ... SMTPUTF8`
    pub smtputf8: bool,
    /// The message's queue id.
    pub id: QueueId,
    /// All recipients.
    pub recipients: &'a [Recipient],
    /// Now.
    pub at: Timestamp,
}

impl Received<'_> {
    /// The field, folded, with its final CRLF.
    pub(super) fn render(&self) -> String {
        // RFC 5321 §4.4: the FROM clause is not optional; this word is a domain and says nothing.
        let from = self.client.map_or_else(
            || "unknown".to_owned(),
            |(name, ip)| format!("{name} ({})", Destination::Literal(ip.to_canonical())),
        );
        let mut field = format!(
            "Received: from {from}\r\n\tby {} with {} id {}",
            self.hostname,
            self.protocol(),
            self.id
        );
        if let [only] = self.recipients {
            let _ = write!(field, "\r\n\tfor <{}>", only.path);
        }
        if let Some(tls) = self.tls {
            // The registry writes TLS 1.3 suites without the version our TLS library puts in front.
            let (family, suite) = tls.cipher.split_once('_').unwrap_or(("TLS", &tls.cipher));
            let family = family.trim_end_matches("13");
            let _ = write!(field, "\r\n\ttls {family}_{suite} ({})", tls.version);
        }
        let _ = write!(field, ";\r\n\t{}\r\n", header::date(self.at));
        field
    }

    fn protocol(&self) -> &'static str {
        match (self.smtputf8, self.esmtp, self.tls.is_some(), self.authenticated) {
            (true, _, false, false) => "UTF8SMTP",
            (true, _, false, true) => "UTF8SMTPA",
            (true, _, true, false) => "UTF8SMTPS",
            (true, _, true, true) => "UTF8SMTPSA",
            (false, false, _, _) => "SMTP",
            (false, true, false, false) => "ESMTP",
            (false, true, false, true) => "ESMTPA",
            (false, true, true, false) => "ESMTPS",
            (false, true, true, true) => "ESMTPSA",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::mail::Mailbox;

    static TLS: LazyLock<ServerFacts> =
        LazyLock::new(|| ServerFacts { version: "TLSv1.3", cipher: "TLS13_AES_256_GCM_SHA384".into() });
    static HOSTNAME: LazyLock<Domain> = LazyLock::new(|| Domain::parse("relay.example.org").unwrap());
    static TO: LazyLock<[Recipient; 2]> = LazyLock::new(|| {
        ["b@example.net", "c@example.net"].map(|to| Recipient::plain(Mailbox::parse(to).unwrap()))
    });

    /// A field about a plain ESMTP client and one recipient, but for a change.
    fn render(change: impl FnOnce(&mut Received<'static>)) -> String {
        let mut received = Received {
            client: Some(("client.example", "192.0.2.1".parse().unwrap())),
            hostname: &HOSTNAME,
            esmtp: true,
            tls: None,
            authenticated: false,
            smtputf8: false,
            id: QueueId { node: 1, sequence: 7 },
            recipients: &TO[..1],
            at: "2026-11-02T04:09:36Z".parse().unwrap(),
        };
        change(&mut received);
        received.render()
    }

    #[test]
    fn the_field_has_every_clause_in_its_place() {
        let field = render(|received| {
            received.client = Some(("[IPv6:2001:db8::1]", "2001:db8::1".parse().unwrap()));
            received.tls = Some(&TLS);
            received.authenticated = true;
        });
        assert_eq!(
            field,
            "Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n\
             \tby relay.example.org with ESMTPSA id 1-00000007\r\n\
             \tfor <b@example.net>\r\n\
             \ttls TLS_AES_256_GCM_SHA384 (TLSv1.3);\r\n\
             \tMon, 02 Nov 2026 04:09:36 +0000\r\n"
        );
    }

    #[test]
    fn a_client_that_nobody_shall_know_is_not_named() {
        let field = render(|received| received.client = None);
        assert_eq!(
            field,
            "Received: from unknown\r\n\tby relay.example.org with ESMTP id 1-00000007\r\n\
             \tfor <b@example.net>;\r\n\tMon, 02 Nov 2026 04:09:36 +0000\r\n"
        );
    }

    #[test]
    fn several_recipients_are_not_named() {
        let field = render(|received| {
            received.client = Some(("client.example", "::ffff:192.0.2.1".parse().unwrap()));
            received.recipients = &TO[..];
        });
        assert!(!field.contains("for <") && !field.contains("tls "), "{field}");
        assert!(field.contains("([192.0.2.1])"), "{field}");
    }

    #[test]
    fn the_protocol_says_how_it_came() {
        for (smtputf8, esmtp, secure, authenticated, want) in [
            (false, false, false, false, "SMTP"),
            (false, true, false, false, "ESMTP"),
            (false, true, false, true, "ESMTPA"),
            (false, true, true, false, "ESMTPS"),
            (false, true, true, true, "ESMTPSA"),
            (true, true, false, false, "UTF8SMTP"),
            (true, true, false, true, "UTF8SMTPA"),
            (true, true, true, false, "UTF8SMTPS"),
            (true, true, true, true, "UTF8SMTPSA"),
        ] {
            let field = render(|received| {
                received.smtputf8 = smtputf8;
                received.esmtp = esmtp;
                received.tls = secure.then_some(&*TLS);
                received.authenticated = authenticated;
            });
            assert!(field.contains(&format!(" with {want} id ")), "{want}: {field}");
        }
    }
}
