//! What is thrown at everything that reads foreign octets, and what must hold whatever they say.
//!
//! One module per target; each takes any octets and panics when an invariant does not hold. Used by
//! `cargo fuzz` (the binaries beside this crate) and, on any toolchain, by `tests/fuzz_corpus.rs`,
//! which replays the corpora and mutations of them.

pub mod address;
pub mod certificate;
pub mod dns_reply;
pub mod dsn;
pub mod input;
pub mod journal;
pub mod policy_store;
pub mod receivers;
pub mod report_read;
pub mod smtp_command;
pub mod smtp_content;
pub mod smtp_reply;
pub mod sts_policy;
pub mod sts_record;
pub mod submission;
pub mod tlsrpt_record;

/// A target.
pub type Target = fn(&[u8]);

/// All of them by name, as their binaries and corpora are called.
pub const TARGETS: &[(&str, Target)] = &[
    ("address", address::run),
    ("certificate", certificate::run),
    ("dns_reply", dns_reply::run),
    ("dsn", dsn::run),
    ("journal", journal::run),
    ("policy_store", policy_store::run),
    ("report_read", report_read::run),
    ("smtp_command", smtp_command::run),
    ("smtp_content", smtp_content::run),
    ("smtp_reply", smtp_reply::run),
    ("sts_policy", sts_policy::run),
    ("sts_record", sts_record::run),
    ("submission", submission::run),
    ("tlsrpt_record", tlsrpt_record::run),
];
