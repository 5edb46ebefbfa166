//! samotop's guard and dispatch: whether the queue can take mail, asked at MAIL and at the content.
//!
//! Who may relay, and what is accepted from them, is decided in the actions, which see the whole
//! context; a guard only sees the session.

use std::sync::Arc;

use samotop_core::common::{S1Fut, S2Fut};
use samotop_core::mail::{
    AddRecipientResult, DispatchError, DispatchResult, MailDispatch, MailGuard, Recipient, StartMailFailure,
    StartMailResult,
};
use samotop_core::smtp::SmtpSession;

use super::Client;
use crate::store::Health;

/// See the module.
#[derive(Debug)]
pub(super) struct Gate(pub(super) Arc<Client>);

impl MailGuard for Gate {
    fn start_mail<'a, 's, 'f>(&'a self, _session: &'s mut SmtpSession) -> S2Fut<'f, StartMailResult>
    where
        'a: 'f,
        's: 'f,
    {
        use StartMailFailure::{FailedTemporarily, StorageExhaustedTemporarily};
        let result = match self.0.shared.inbox.health() {
            Health::Fine => StartMailResult::Accepted,
            Health::Low(why) | Health::Full(why) | Health::ReadOnly(why) => {
                StartMailResult::Failed(StorageExhaustedTemporarily, why)
            }
            Health::Failed(why) => StartMailResult::Failed(FailedTemporarily, why),
        };
        Box::pin(std::future::ready(result))
    }

    fn add_recipient<'a, 's, 'f>(
        &'a self,
        _session: &'s mut SmtpSession,
        recipient: Recipient,
    ) -> S2Fut<'f, AddRecipientResult>
    where
        'a: 'f,
        's: 'f,
    {
        Box::pin(std::future::ready(AddRecipientResult::Inconclusive(recipient)))
    }
}

impl MailDispatch for Gate {
    /// The action has put the sink in place; here the queue has its last say before content comes.
    fn open_mail_body<'a, 's, 'f>(&'a self, session: &'s mut SmtpSession) -> S1Fut<'f, DispatchResult>
    where
        'a: 'f,
        's: 'f,
    {
        // Who was let in at MAIL stays in while there only is little room.
        let takes = matches!(self.0.shared.inbox.health(), Health::Fine | Health::Low(_));
        let sound = session.transaction.sink.is_some() && takes;
        Box::pin(std::future::ready(if sound { Ok(()) } else { Err(DispatchError::Temporary) }))
    }
}
