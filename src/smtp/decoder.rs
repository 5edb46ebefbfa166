//! Replies of a server from bytes, incremental and bounded (RFC 5321 §4.2).
