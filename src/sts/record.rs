//! The `_mta-sts` TXT record (RFC 8461 §3.1).

/// A usable record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StsRecord {
    /// Opaque equality token, 1 to 32 alphanumerics (RFC 8461 §3.1).
    pub id: String,
}

/// Why TXT answers hold no usable record. Each of them means "no live policy": an unexpired cached
/// policy still applies (RFC 8461 §3.1, §5.1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No TXT record begins `v=STSv1;`.
    #[error("no v=STSv1 record")]
    Absent,
    /// More than one does.
    #[error("more than one v=STSv1 record")]
    Several,
    /// One does, but its syntax is wrong.
    #[error("bad v=STSv1 record: {0}")]
    Malformed(&'static str),
}

/// Finds the one record among the TXT records of a name; each item is one record with its
/// character-strings already joined without separators.
///
/// # Errors
/// See [`RecordError`].
pub fn parse<T: AsRef<[u8]>>(txts: &[T]) -> Result<StsRecord, RecordError> {
    todo!()
}
