//! `report digest`: a day in words, the same as in the daily mail.

use jiff::civil::Date;

use super::super::output::{Output, progress};
use super::super::{Exit, Failure};
use super::{ask, strange};
use crate::admin::client::Client;
use crate::admin::protocol::reports::{ReportsAnswer, ReportsRequest};

pub(super) fn run(daemon: &mut Client, day: Option<Date>, as_json: bool) -> Result<Exit, Failure> {
    progress("digesting ...");
    let ReportsAnswer::Digest(digest) = ask(daemon, ReportsRequest::Digest { day })? else {
        return Err(strange());
    };
    let mut out = Output::new();
    if as_json {
        out.json(&*digest)?;
    } else {
        digest.text().lines().try_for_each(|line| out.line(line))?;
    }
    out.finish()?;
    Ok(Exit::Fine)
}
