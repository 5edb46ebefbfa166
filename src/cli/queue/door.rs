//! The queue that `export` and `import` work on: the running daemon's, asked over its socket, or a
//! stopped daemon's, opened here. Both give the same answers.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::super::output::progress;
use super::super::{ConfigArgs, Exit, Failure, unexpected};
use crate::admin::client::Client;
use crate::admin::protocol::transfer::{TransferAnswer, TransferRequest};
use crate::admin::protocol::{Answer, Request};
use crate::admin::transfer::Transfer;
use crate::config::Loaded;
use crate::net::{Clock as _, SystemClock};
use crate::store::{self, Ground, Moves, Queue, QueueOptions};

pub(super) enum Door {
    Daemon(Box<Client>),
    Files(Box<Files>),
}

pub(super) struct Files {
    runtime: Runtime,
    queue: Queue,
    transfer: Transfer,
}

impl Door {
    pub(super) fn open(args: &ConfigArgs) -> Result<Self, Failure> {
        let loaded = args.load()?;
        match Client::connect(&loaded.config.admin.socket) {
            Ok(client) => Ok(Self::Daemon(Box::new(client))),
            Err(unreachable) => {
                Files::open(&loaded).map(|files| Self::Files(Box::new(files))).map_err(|text| {
                    Failure::new(Exit::Failed, format!("{unreachable}; and without a daemon: {text}"))
                })
            }
        }
    }

    /// What is asked, done or refused.
    pub(super) fn ask(&mut self, request: TransferRequest) -> Result<TransferAnswer, Failure> {
        let answer = match self {
            Self::Daemon(client) => client.ask(Request::Transfer(request))?,
            Self::Files(files) => files.runtime.block_on(files.transfer.answer(request)),
        };
        match answer {
            Answer::Transfer(answer) => Ok(answer),
            other => Err(unexpected(other)),
        }
    }

    /// Closes a queue opened here, in order.
    pub(super) fn close(self) {
        if let Self::Files(files) = self {
            files.runtime.block_on(files.queue.close());
        }
    }
}

impl Files {
    fn open(loaded: &Loaded) -> Result<Self, String> {
        let server = &loaded.config.server;
        let data_dir = &server.data_dir;
        owned_by_us(&data_dir.join("queue"))?;
        store::survey(data_dir).map_err(|error| error.to_string())?;
        let runtime = Runtime::new().map_err(|error| format!("the runtime cannot be started: {error}"))?;
        let options = QueueOptions { data_dir: data_dir.clone(), node: server.node };
        let mut ground = Ground::machine();
        ground.limits.segment_bytes = server.journal_segment.0;
        let (queue, mut told) =
            Queue::open_over(&ground, &options, SystemClock.now()).map_err(|error| error.to_string())?;
        let (moves, more) = Moves::open(data_dir, SystemClock.now()).map_err(|error| error.to_string())?;
        told.extend(more);
        progress(&format!("the daemon does not run: working on {}", data_dir.display()));
        for repair in told {
            progress(&format!("repaired: {repair}"));
        }
        let transfer = Transfer::new(Arc::new(SystemClock), queue.clone(), moves);
        Ok(Self { runtime, queue, transfer })
    }
}

/// Files made by another user than the daemon's would keep it from starting.
fn owned_by_us(dir: &Path) -> Result<(), String> {
    let owner = |path: &Path| -> io::Result<u32> { Ok(std::fs::metadata(path)?.uid()) };
    let theirs = owner(dir).map_err(|error| format!("there is no queue in {}: {error}", dir.display()))?;
    let ours = owner(Path::new("/proc/self")).map_err(|error| format!("/proc cannot be read: {error}"))?;
    if theirs == ours {
        return Ok(());
    }
    Err(format!(
        "{} belongs to the user with id {theirs}: run this as that user, for example with sudo -u '#{theirs}'",
        dir.display()
    ))
}
