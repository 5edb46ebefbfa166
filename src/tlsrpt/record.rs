//! The `_smtp._tls` TXT record (RFC 8460 §3).

use crate::mail::Mailbox;

/// A usable record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsrptRecord {
    /// Where reports go, in the order named; never empty, schemes we do not know left out.
    pub rua: Vec<Rua>,
}

/// One report target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Rua {
    /// `mailto:`; address only, header fields of the URI are ignored (RFC 6068).
    Mailto(Mailbox),
    /// `https:`, as published.
    Https(String),
}

/// Why TXT answers hold no usable record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No TXT record begins `v=TLSRPTv1;`.
    #[error("no v=TLSRPTv1 record")]
    Absent,
    /// More than one does.
    #[error("more than one v=TLSRPTv1 record")]
    Several,
    /// One does, but it names no target we can use.
    #[error("bad v=TLSRPTv1 record: {0}")]
    Malformed(&'static str),
}

/// Finds the one record among the TXT records of a name; each item is one record with its
/// character-strings joined without separators.
///
/// # Errors
/// See [`RecordError`].
pub fn parse<T: AsRef<[u8]>>(txts: &[T]) -> Result<TlsrptRecord, RecordError> {
    todo!()
}
