//! Sessions over a pipe, against a queue that can be told to fail.

mod auth;
mod content;
mod limits;
mod order;
mod rights;
mod support;
