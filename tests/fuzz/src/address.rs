//! Domains, destinations, mailboxes, paths: what is read can be written, kept and read again.

use stsrelay::mail::address::{LOCAL_PART_BYTES_MAX, PATH_BYTES_MAX};
use stsrelay::mail::domain::DOMAIN_BYTES_MAX;
use stsrelay::mail::{Destination, Domain, Mailbox, Pattern, ReversePath};

/// One text, read as everything it might be.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(domain) = Domain::parse(text) {
        check_domain(&domain);
        assert_eq!(domain, Domain::parse(&format!("{domain}.")).expect("a root dot changes nothing"));
    }
    if let Ok(destination) = Destination::parse(text) {
        assert_eq!(destination.to_string().parse(), Ok(destination.clone()));
        assert_eq!(kept(&destination), destination);
        destination.domain().into_iter().for_each(check_domain);
    }
    if let Ok(mailbox) = Mailbox::parse(text) {
        check_mailbox(&mailbox);
    }
    if let Ok(path) = ReversePath::parse(text) {
        assert_eq!(ReversePath::parse(&path.to_string()), Ok(path.clone()));
        assert_eq!(kept(&path), path);
        path.mailbox().into_iter().for_each(check_mailbox);
    }
    if let Ok(pattern) = text.parse::<Pattern>() {
        assert_eq!(pattern.to_string().parse(), Ok(pattern));
    }
}

pub fn check_domain(domain: &Domain) {
    let text = domain.as_str();
    assert!(text.len() <= DOMAIN_BYTES_MAX && text.is_ascii() && *text == *text.to_ascii_lowercase());
    assert!(domain.labels().all(|label| (1..=63).contains(&label.len())), "{text}");
    assert!(text.parse::<std::net::IpAddr>().is_err(), "{text} is an address");
    assert_eq!(Domain::parse_a_label(text).as_ref(), Ok(domain));
    assert_eq!(kept(domain), *domain);
    if let Ok(below) = domain.prefixed("_mta-sts") {
        assert!(below.is_within(domain) && !domain.is_within(&below));
    }
}

pub fn check_mailbox(mailbox: &Mailbox) {
    let text = mailbox.to_string();
    assert!(text.len() + 2 <= PATH_BYTES_MAX && mailbox.local().len() <= LOCAL_PART_BYTES_MAX, "{text}");
    // No octet of it can end a command, a header field or a string of C.
    assert!(!text.bytes().any(|b| b.is_ascii_control()), "{text:?}");
    assert_eq!(Mailbox::parse(&text).as_ref(), Ok(mailbox));
    assert_eq!(kept(mailbox), *mailbox);
    // As the client says it in a command, and a server reads it.
    let path = ReversePath::parse(&format!("<{text}>")).expect("a mailbox in brackets is a path");
    assert_eq!(path.mailbox(), Some(mailbox));
}

/// Through the form in which the journal keeps it.
pub fn kept<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let text = serde_json::to_string(value).expect("it can be kept");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text} cannot be read back: {error}"))
}
