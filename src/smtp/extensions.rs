//! What a server offered in its EHLO reply (RFC 5321 §4.1.1.1).
//!
//! Pure. Keywords count as whole words in any case; what is not understood is ignored, as garbage
//! here harms nobody. Called by [`super::client`].

use crate::mail::Reply;

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
    /// AUTH with PLAIN among its mechanisms (RFC 4954 §3, RFC 4616)
    pub auth_plain: bool,
    /// AUTH with LOGIN
    pub auth_login: bool,
    /// SIZE with its limit; `None` when not offered, `Some(0)` for no fixed limit (RFC 1870 §4).
    pub size: Option<u64>,
}

impl Extensions {
    /// Reads the reply to EHLO.
    pub fn parse(reply: &Reply) -> Self {
        let mut offers = Self::default();
        // RFC 5321 §4.1.1.1: the first line is the server's name and greeting, never a keyword.
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else { continue };
            // RFC 5321 §2.4: keywords are case-insensitive.
            match keyword.to_ascii_uppercase().as_str() {
                "STARTTLS" => offers.starttls = true,
                "PIPELINING" => offers.pipelining = true,
                "8BITMIME" => offers.eight_bit_mime = true,
                "SMTPUTF8" => offers.smtputf8 = true,
                "DSN" => offers.dsn = true,
                "CHUNKING" => offers.chunking = true,
                "ENHANCEDSTATUSCODES" => offers.enhanced_status_codes = true,
                "REQUIRETLS" => offers.require_tls = true,
                "AUTH" => offers.mechanisms(words),
                // As some servers of old still write it.
                old if old.starts_with("AUTH=") => offers.mechanisms(old[5..].split(' ').chain(words)),
                "SIZE" => offers.size = Some(size_limit(words.next())),
                _ => {}
            }
        }
        offers
    }
}

impl Extensions {
    fn mechanisms<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        for word in words {
            self.auth_plain |= word.eq_ignore_ascii_case("PLAIN");
            self.auth_login |= word.eq_ignore_ascii_case("LOGIN");
        }
    }
}

/// RFC 1870 §4: no number, or zero, is no fixed limit. So is a number that cannot be read or is
/// greater than any message: the server will say so itself when it comes to it.
fn size_limit(word: Option<&str>) -> u64 {
    word.filter(|word| word.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Extensions {
        let lines = lines.iter().map(|&line| line.to_owned()).collect();
        Extensions::parse(&Reply { code: 250, enhanced: None, lines })
    }

    #[test]
    fn keywords_are_whole_words_in_any_case() {
        let all = parse(&[
            "mx.example.net",
            "starttls",
            "PipeLining",
            "8bitmime",
            "SMTPUTF8",
            "DSN",
            "CHUNKING",
            "ENHANCEDSTATUSCODES",
            "RequireTLS",
            "size 1000",
        ]);
        assert!(all.starttls && all.pipelining && all.eight_bit_mime && all.smtputf8 && all.dsn);
        assert!(all.chunking && all.enhanced_status_codes && all.require_tls);
        assert_eq!(all.size, Some(1000));
        for near in
            ["STARTTLSX", "XSTARTTLS", "STARTTLS=1", "START TLS", "SIZE.example hi", "-DSN", "DSN,", ""]
        {
            assert_eq!(parse(&["mx", near]), Extensions::default(), "{near}");
        }
        assert!(parse(&["mx", "  STARTTLS  with words "]).starttls);
    }

    #[test]
    fn the_first_line_is_no_keyword() {
        assert_eq!(parse(&["STARTTLS"]), Extensions::default());
        assert_eq!(parse(&["SIZE 1", "HELP"]), Extensions::default());
        assert_eq!(parse(&[]), Extensions::default());
    }

    #[test]
    fn size_may_lack_its_number() {
        for (line, size) in [
            ("SIZE", Some(0)),
            ("SIZE 0", Some(0)),
            ("SIZE 1", Some(1)),
            ("SIZE 18446744073709551615", Some(u64::MAX)),
            ("SIZE 99999999999999999999", Some(0)),
            ("SIZE +5", Some(0)),
            ("SIZE -5", Some(0)),
            ("SIZE many", Some(0)),
            ("SIZE=5", None),
        ] {
            assert_eq!(parse(&["mx", line]).size, size, "{line}");
        }
    }
}
