//! The digest by mail, once a day: it enters by the queue like any other message.
//!
//! 1. A queue id is allocated, and kept as "under way". Durable.
//! 2. The queue takes the mail. Durable.
//! 3. "Queued" is kept. Durable.
//!
//! Cut short between 1 and 3, the queue is asked for the id: there it is, or all begins anew. What
//! remains: a mail delivered and gone within the moment before 3 is sent again. Only yesterday's digest
//! is mailed; older news is no news. A task of its own, started by `daemon`.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::Date;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::super::{Options, Reporting};
use super::Digest;
use crate::mail::header::date;
use crate::mail::mime::{Header, is_seven_bit, quoted_printable};
use crate::mail::{BodyType, Envelope, Mailbox, Notify, Recipient, ReversePath, TlsRequest};
use crate::queue::QueueId;
use crate::queue::retry::after;
use crate::store::digests::Mailed;
use crate::store::{Body, Filter, NewMessage, Policies};
use crate::tlsrpt::report::{day_of, day_start};

/// Sleeps are no longer than this, so that a changed wall clock is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(600);
/// After a trouble with the store, before trying again.
const RETRY: Duration = Duration::from_secs(300);

/// `[digest]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestOptions {
    /// Who gets it; nobody by default.
    pub to: Vec<Mailbox>,
    /// From and reverse-path.
    pub from: Mailbox,
    /// So long after 00:00 UTC. Default [`DIGEST_AFTER`].
    pub after: Duration,
}

/// The default of [`DigestOptions::after`]: reports of the day before are under way by then.
pub const DIGEST_AFTER: Duration = Duration::from_secs(6 * 3600);

impl Reporting {
    /// Mails yesterday's digest once a day until `shutdown`, where the options name somebody. Never ends by
    /// itself.
    pub async fn run_digests(self, policies: Policies, shutdown: CancellationToken) {
        let mut options = self.inner.options.clone();
        let mut options_end = false;
        while !shutdown.is_cancelled() {
            let current = options.borrow_and_update().clone();
            let wait = self.mail_when_due(&policies, &current).await;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                changed = options.changed(), if !options_end => options_end = changed.is_err(),
                () = sleep(wait) => {}
            }
        }
    }

    /// Mails the digest if it is time; how long nothing is to be done.
    pub(in crate::reporting) async fn mail_when_due(
        &self,
        policies: &Policies,
        options: &Options,
    ) -> Duration {
        let now = self.now();
        let today = day_of(now);
        let Some(day) = today.yesterday().ok().filter(|_| !options.digest.to.is_empty()) else {
            return SLEEP_MAX;
        };
        let due = after(day_start(today), options.digest.after);
        if now < due {
            return Duration::try_from(due.duration_since(now)).unwrap_or(SLEEP_MAX).min(SLEEP_MAX);
        }
        if self.reports().digests().get(day).is_some_and(|mailed| mailed.queued) {
            return SLEEP_MAX;
        }
        match self.mail_digest(policies, options, day).await {
            Ok(id) => {
                info!(%day, queue_id = %id, "daily digest queued");
                SLEEP_MAX
            }
            Err(error) => {
                warn!(%day, error, "daily digest not mailed; tried again");
                RETRY
            }
        }
    }

    async fn mail_digest(
        &self,
        policies: &Policies,
        options: &Options,
        day: Date,
    ) -> Result<QueueId, String> {
        if let Some(begun) = self.reports().digests().get(day)
            && self.has_digest(begun.id, options).await?
        {
            self.kept(Mailed { queued: true, ..(*begun).clone() }).await;
            return Ok(begun.id);
        }
        let digest = self.digest(policies, Some(day)).await;
        let id = self.queue().allocate_id();
        let now = self.now();
        let (envelope, content) = compose(options, &digest, id, now)?;
        let mailed = Mailed { day, id, queued: false };
        self.reports().digests().put(mailed.clone()).await.map_err(|error| error.to_string())?;
        let body = Body::Memory(Bytes::from(content));
        let message = NewMessage { id, envelope, body, received_at: now, is_report: false, expires_at: None };
        self.queue().enqueue(message).await.map_err(|error| error.to_string())?;
        self.kept(Mailed { queued: true, ..mailed }).await;
        Ok(id)
    }

    /// It is in memory at least, so this run does not mail it again.
    async fn kept(&self, mailed: Mailed) {
        if let Err(error) = self.reports().digests().put(mailed).await {
            warn!(%error, "daily digest queued, but this could not be kept; looked up after a restart");
        }
    }

    /// Whether the queue has a digest under this id; the id alone may be another message's.
    async fn has_digest(&self, id: QueueId, options: &Options) -> Result<bool, String> {
        let filter = Filter { id: Some(id), ..Filter::default() };
        let page = self.queue().list(&filter, None, 1).await.map_err(|error| error.to_string())?;
        let Some(found) = page.entries.first() else { return Ok(false) };
        let envelope = &found.item.envelope;
        let ours = envelope.reverse_path == ReversePath::Mailbox(options.digest.from.clone());
        Ok(ours && envelope.recipients.iter().all(|recipient| options.digest.to.contains(&recipient.path)))
    }
}

fn compose(
    options: &Options,
    digest: &Digest,
    id: QueueId,
    now: Timestamp,
) -> Result<(Envelope, Vec<u8>), String> {
    let (from, to) = (&options.digest.from, &options.digest.to);
    let text = digest.text().replace('\n', "\r\n");
    let (charset, encoding, body) = match is_seven_bit(text.as_bytes()) {
        true => ("us-ascii", "7bit", text.into_bytes()),
        false => ("utf-8", "quoted-printable", quoted_printable(text.as_bytes())),
    };
    let recipients: Vec<String> = to.iter().map(|to| format!("<{to}>")).collect();
    let mut unsigned = Header::new()
        .field("From", &format!("<{from}>"))
        .field("To", &recipients.join(", "))
        .field("Subject", &format!("{} {}", options.hostname, digest.headline()))
        .field("Date", &date(now))
        .field("Message-ID", &format!("<{id}.digest@{}>", options.hostname))
        // RFC 3834 §5: nobody's vacation responder should answer.
        .field("Auto-Submitted", "auto-generated")
        .field("MIME-Version", "1.0")
        .field("Content-Type", &format!("text/plain; charset={charset}"))
        .field("Content-Transfer-Encoding", encoding)
        .into_bytes();
    unsigned.extend_from_slice(b"\r\n");
    unsigned.extend_from_slice(&body);
    let mut content = Vec::new();
    for signer in options.dkim.iter() {
        content.extend(signer.sign(&unsigned).map_err(|error| format!("DKIM: {error}"))?);
    }
    content.extend_from_slice(&unsigned);
    let smtputf8 = from.needs_smtputf8() || to.iter().any(Mailbox::needs_smtputf8);
    let recipient =
        |path: &Mailbox| Recipient { path: path.clone(), notify: Some(Notify::Never), orcpt: None };
    let envelope = Envelope {
        reverse_path: ReversePath::Mailbox(from.clone()),
        recipients: to.iter().map(recipient).collect(),
        body: if smtputf8 { BodyType::EightBitMime } else { BodyType::SevenBit },
        smtputf8,
        ret: None,
        envid: None,
        tls: TlsRequest::None,
    };
    Ok((envelope, content))
}
