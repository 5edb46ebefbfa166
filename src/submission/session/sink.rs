//! The body sink samotop writes a message to: [`Incoming`] behind a poll interface.
//!
//! A write is taken at once; when enough has come together it is handed on, and the next write waits
//! for that. Closing it queues the message: `Ok` means stable storage (invariant I1). An error
//! carries an [`IntakeError`], see [`refusal`].

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use samotop_core::common::io::Write;
use samotop_core::common::poll_fn;
use samotop_core::smtp::SmtpSession;

use crate::submission::intake::{Incoming, IntakeError, Queued};

/// Where the sink leaves what became of the message.
pub(super) type Receipt = Arc<OnceLock<Queued>>;

/// See the module.
pub(super) struct Sink {
    state: State,
    receipt: Receipt,
}

type Spilling = BoxFuture<'static, (Box<Incoming>, Result<(), IntakeError>)>;
type Committing = BoxFuture<'static, Result<Queued, IntakeError>>;

enum State {
    Open(Box<Incoming>),
    /// The locks are never taken: they make the futures `Sync`, which samotop asks for.
    Spilling(Mutex<Spilling>),
    Committing(Mutex<Committing>),
    /// Done, or failed and never touched again.
    Spent,
}

impl Sink {
    pub(super) fn new(incoming: Incoming, receipt: Receipt) -> Self {
        Self { state: State::Open(Box::new(incoming)), receipt }
    }

    /// Waits for a spill to end.
    fn poll_spilled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let State::Spilling(spilling) = &mut self.state {
            let spilling = spilling.get_mut().unwrap_or_else(PoisonError::into_inner);
            let (incoming, outcome) = ready!(spilling.as_mut().poll(cx));
            if let Err(error) = outcome {
                return self.fail(error);
            }
            self.state = State::Open(incoming);
        }
        Poll::Ready(Ok(()))
    }

    fn fail<T>(&mut self, error: IntakeError) -> Poll<io::Result<T>> {
        self.state = State::Spent;
        Poll::Ready(Err(io::Error::other(error)))
    }

    fn take(&mut self) -> Option<Box<Incoming>> {
        match std::mem::replace(&mut self.state, State::Spent) {
            State::Open(incoming) => Some(incoming),
            _ => None,
        }
    }
}

/// Why a sink failed.
pub(super) fn refusal(error: &io::Error) -> Option<&IntakeError> {
    error.get_ref()?.downcast_ref()
}

impl Write for Sink {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_spilled(cx))?;
        let Some(mut incoming) = self.take() else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if let Err(error) = incoming.take(bytes) {
            return self.fail(error);
        }
        self.state = if incoming.is_full() {
            State::Spilling(Mutex::new(Box::pin(async move {
                let outcome = incoming.spill().await;
                (incoming, outcome)
            })))
        } else {
            State::Open(incoming)
        };
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_spilled(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_spilled(cx))?;
        if let State::Open(_) = self.state
            && let Some(incoming) = self.take()
        {
            self.state = State::Committing(Mutex::new(Box::pin(incoming.commit())));
        }
        let State::Committing(committing) = &mut self.state else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let committing = committing.get_mut().unwrap_or_else(PoisonError::into_inner);
        match ready!(committing.as_mut().poll(cx)) {
            Ok(queued) => {
                let _ = self.receipt.set(queued);
                self.state = State::Spent;
                Poll::Ready(Ok(()))
            }
            Err(error) => self.fail(error),
        }
    }
}

/// Writes all of it to the body sink.
pub(super) async fn write(session: &mut SmtpSession, mut content: &[u8]) -> io::Result<()> {
    let sink = session.transaction.sink.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
    while !content.is_empty() {
        match poll_fn(|cx| sink.as_mut().poll_write(cx, content)).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => content = &content[written..],
        }
    }
    Ok(())
}

/// Closes the body sink: the message is queued, or not.
pub(super) async fn close(session: &mut SmtpSession) -> io::Result<()> {
    let mut sink = session.transaction.sink.take().ok_or(io::ErrorKind::BrokenPipe)?;
    poll_fn(|cx| sink.as_mut().poll_close(cx)).await
}
