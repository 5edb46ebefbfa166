//! Story 2: mail out.

pub mod gather;
