//! Command lines of a submitting client, verbatim and strict (RFC 5321 §4.1).
