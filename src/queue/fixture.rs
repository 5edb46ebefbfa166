//! Items for tests.

use std::sync::Arc;

use jiff::Timestamp;

use super::{QueueItem, RecipientState, RecipientStatus};
use crate::mail::{BodyType, Destination, Envelope, Mailbox, Recipient, ReversePath, TlsRequest};

/// An item that was not tried yet, from this reverse-path (with brackets) to so many recipients at
/// `example.org`.
pub(crate) fn item(from: &str, recipients: usize, received_at: Timestamp) -> QueueItem {
    let recipient = |number| Recipient {
        path: Mailbox::parse(&format!("r{number}@example.org")).unwrap(),
        notify: None,
        orcpt: None,
    };
    QueueItem {
        id: "1-00000001.0".parse().unwrap(),
        destination: Destination::parse("example.org").unwrap(),
        envelope: Arc::new(Envelope {
            reverse_path: ReversePath::parse(from).unwrap(),
            recipients: (0..recipients).map(recipient).collect(),
            body: BodyType::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
            tls: TlsRequest::None,
        }),
        recipients: (0..recipients)
            .map(|index| RecipientStatus { index, state: RecipientState::Pending(None) })
            .collect(),
        received_at,
        size: 0,
        attempts: 0,
        delay_warned: false,
        is_report: false,
        expires_at: None,
        history: Vec::new(),
    }
}
