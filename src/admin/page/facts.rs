//! What pages are made of: the answers the command line gets too, and a few looks at what is in memory.
//!
//! A trait, so that pages are tested with made-up answers. Changes nothing by itself.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::super::answer::AdminHandles;
use super::super::history::{Column, Range};
use super::super::protocol::{Answer, Request};
use crate::delivery::HostStanding;
use crate::mail::Destination;
use crate::sts::CachedPolicy;

/// See the file's header.
pub(super) trait Facts: Send + Sync + 'static {
    /// What the command line would be answered.
    fn ask(&self, request: Request) -> BoxFuture<'static, Answer>;
    /// The present instant.
    fn now(&self) -> Timestamp;
    /// The columns of a plot.
    fn columns(&self, range: Range) -> Vec<Column>;
    /// Hosts that could not be talked to.
    fn hosts(&self, max: usize) -> Vec<HostStanding>;
    /// What keeps mail to a destination waiting beside its schedule: its hosts, or a pause it asked for.
    fn waits(&self, destination: &Destination) -> Option<String>;
    /// When the listeners' certificate ends; `None` without one, or when it does not tell.
    fn certificate_ends(&self) -> Option<Timestamp>;
    /// Cached policies of domains whose name holds `find`, after this one, in order of name; at most `max`.
    fn policies(&self, find: &str, after: Option<&str>, max: usize) -> Vec<Arc<CachedPolicy>>;
}

/// The real ones.
pub(super) struct Live(pub(super) Arc<AdminHandles>);

impl Facts for Live {
    fn ask(&self, request: Request) -> BoxFuture<'static, Answer> {
        let handles = Arc::clone(&self.0);
        Box::pin(async move { handles.answer(request).await })
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn columns(&self, range: Range) -> Vec<Column> {
        self.0.history.columns(range)
    }

    fn hosts(&self, max: usize) -> Vec<HostStanding> {
        self.0.traffic.hosts(max)
    }

    fn waits(&self, destination: &Destination) -> Option<String> {
        self.0.traffic.held(destination, self.now()).map(|held| held.text)
    }

    fn certificate_ends(&self) -> Option<Timestamp> {
        self.0.server_tls.borrow().as_ref().and_then(|tls| tls.ends_at())
    }

    fn policies(&self, find: &str, after: Option<&str>, max: usize) -> Vec<Arc<CachedPolicy>> {
        let wanted = |entry: &Arc<CachedPolicy>| {
            let name = entry.domain.as_str();
            after.is_none_or(|after| name > after) && name.contains(find)
        };
        let mut found: Vec<_> = self.0.policies.list().into_iter().filter(wanted).collect();
        found.sort_by(|a, b| a.domain.cmp(&b.domain));
        found.truncate(max);
        found
    }
}
