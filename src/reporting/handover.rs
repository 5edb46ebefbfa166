//! From a report to a mail in our own queue, exactly once whatever crashes.
//!
//! 1. A queue id is allocated and the mail made.
//! 2. The entry says `Queued` with that id, nothing more: hand-over under way. Durable.
//! 3. The queue takes the mail. Durable.
//! 4. The entry says so. Durable.
//!
//! Cut short between 2 and 4, the next run asks the queue for the id: there it is, or all begins anew
//! with another id. Called by `work`.

use bytes::Bytes;
use jiff::Timestamp;
use tracing::{info, warn};

use super::mail::{MailFacts, compose};
use super::work::Stop;
use super::{Options, Reporting, entry};
use crate::mail::{Envelope, Mailbox};
use crate::net::world::aside;
use crate::queue::QueueId;
use crate::queue::retry::after;
use crate::store::{Body, Filter, NewMessage, QueueError, ReportEntry, RuaStatus};

/// Octets of a queued message looked at to know a report again: its header, signature included.
const HEAD_BYTES: usize = 8192;

impl Reporting {
    /// Queues the mail for one target, once.
    pub(super) async fn hand_over(
        &self,
        options: &Options,
        entry: &mut ReportEntry,
        index: usize,
        to: &Mailbox,
    ) -> Result<(), Stop> {
        if let Some(id) = entry::unconfirmed(&entry.targets[index]) {
            if self.is_queued(id, &entry.report_id, to).await? {
                return self.confirm(options, entry, index, id).await;
            }
            warn!(day = %entry.day, domain = %entry.domain, "hand-over of a TLS report was cut short, repeated");
        }
        let (now, started_at) = (self.now(), entry.started_at);
        let id = self.queue().allocate_id();
        let (envelope, content) = match self.mail(options, entry, id, to, now).await {
            Ok(mail) => mail,
            Err(why) => {
                entry::defer(&mut entry.targets[index], started_at, now, &options.retry, why);
                return self.keep(entry).await;
            }
        };
        let before = entry.targets[index].clone();
        entry.targets[index].status = RuaStatus::Queued(id);
        entry.targets[index].last = None;
        self.keep(entry).await?;
        let message = NewMessage {
            id,
            envelope,
            body: Body::Memory(Bytes::from(content)),
            received_at: now,
            is_report: true,
            // RFC 8460 §5.5: 24 hours from the first try, which is now.
            expires_at: Some(after(now, entry::GIVE_UP_AFTER)),
        };
        match self.queue().enqueue(message).await {
            Ok(_) => self.confirm(options, entry, index, id).await,
            Err(error) => {
                entry.targets[index] = before;
                let why = error.to_string();
                entry::defer(&mut entry.targets[index], started_at, now, &options.retry, why);
                self.keep(entry).await
            }
        }
    }

    /// The mail, made off the async threads: compression and RSA take their milliseconds.
    async fn mail(
        &self,
        options: &Options,
        entry: &ReportEntry,
        id: QueueId,
        to: &Mailbox,
        now: Timestamp,
    ) -> Result<(Envelope, Vec<u8>), String> {
        let (options, to) = (options.clone(), to.clone());
        let (domain, json) = (entry.domain.clone(), entry.json.clone());
        let random = self.random().number();
        aside(move || {
            compose(&MailFacts {
                options: &options,
                report_domain: &domain,
                json: &json,
                to: &to,
                queue_id: id,
                now,
                random,
            })
        })
        .await
        .map_err(|error| format!("the mail could not be made: {error}"))?
    }

    async fn confirm(
        &self,
        options: &Options,
        entry: &mut ReportEntry,
        index: usize,
        id: QueueId,
    ) -> Result<(), Stop> {
        let unsigned =
            if options.dkim.is_empty() { ", unsigned (tlsrpt.dkim_key_file is not set)" } else { "" };
        let target = &mut entry.targets[index];
        target.attempts = target.attempts.saturating_add(1);
        target.status = RuaStatus::Queued(id);
        target.last = Some(format!("handed to the queue as {id}{unsigned}"));
        info!(day = %entry.day, domain = %entry.domain, rua = %target.rua, queue_id = %id, "TLS report queued");
        if let Err(Stop::Storage(why)) = self.keep(entry).await {
            // Queued all the same: another try within this run would send it twice.
            warn!(day = %entry.day, domain = %entry.domain, queue_id = %id, error = %why,
                "TLS report queued, but this could not be kept; looked up in the queue after a restart");
        }
        Ok(())
    }

    /// Whether the queue has this report to this address under this id.
    ///
    /// The id alone would not do: one that was never used for a message may be given again.
    async fn is_queued(&self, id: QueueId, report_id: &str, to: &Mailbox) -> Result<bool, Stop> {
        let filter = Filter { id: Some(id), ..Filter::default() };
        let storage = |error: QueueError| Stop::Storage(error.to_string());
        let page = self.queue().list(&filter, None, 1).await.map_err(storage)?;
        let Some(found) = page.entries.first() else { return Ok(false) };
        let envelope = &found.item.envelope;
        let ours = found.item.is_report && envelope.recipients.iter().any(|recipient| recipient.path == *to);
        if !ours {
            return Ok(false);
        }
        let body = self.queue().body(id).await.map_err(storage)?;
        let head = body.head(HEAD_BYTES).await.map_err(storage)?;
        Ok(memchr::memmem::find(&head, format!("<{report_id}>").as_bytes()).is_some())
    }
}
