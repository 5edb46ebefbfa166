//! What a server offered in its EHLO reply (RFC 5321 §4.1.1.1).

/// The extensions a server offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// STARTTLS (RFC 3207)
    pub starttls: bool,
    /// PIPELINING (RFC 2920)
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152)
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531)
    pub smtputf8: bool,
    /// DSN (RFC 3461)
    pub dsn: bool,
    /// CHUNKING (RFC 3030)
    pub chunking: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034)
    pub enhanced_status_codes: bool,
    /// REQUIRETLS (RFC 8689)
    pub require_tls: bool,
    /// SIZE with its limit; `None` when not offered, `Some(0)` for no fixed limit (RFC 1870 §4).
    pub size: Option<u64>,
}
