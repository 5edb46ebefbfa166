//! How values are written in the configuration: durations, sizes, networks, name servers, days.
//!
//! Each type reads one text form and shows itself in the same form, so that `config show` prints
//! what could be pasted back. Pure.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest duration that can be configured: 10 years, far from every overflow.
pub const SPAN_SECONDS_MAX: u64 = 3650 * 24 * 3600;

/// A duration: `"30s"`, `"5m"`, `"4h"`, `"5d"`, or several parts, `"1h30m"`; whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of octets: `"50MB"` (powers of ten), `"64KiB"` (powers of two), `"1000"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A network `"10.0.0.0/8"`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(pub IpNet);

/// A name server `"127.0.0.1:53"`; the port may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nameserver(pub SocketAddr);

/// A day `"2027-01-31"`, meant inclusively, or an instant `"2027-01-31T12:00:00Z"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The whole day counts, in UTC.
    Day(Date),
    /// Up to this instant.
    Instant(Timestamp),
}

impl Until {
    /// The first instant that no longer counts.
    pub fn end(&self) -> Timestamp {
        match self {
            Self::Instant(at) => *at,
            Self::Day(day) => day
                .checked_add(1.day())
                .and_then(|next| next.to_zoned(TimeZone::UTC))
                .map_or(Timestamp::MAX, |zoned| zoned.timestamp()),
        }
    }
}

impl FromStr for Until {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(day) = text.parse::<Date>()
            && text.len() == 10
        {
            return Ok(Self::Day(day));
        }
        text.parse()
            .map(Self::Instant)
            .map_err(|_| format!("{text:?} is not a day; write it like \"2027-01-31\""))
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(day) => day.fmt(f),
            Self::Instant(at) => at.fmt(f),
        }
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a duration; write it like \"30s\", \"5m\", \"4h\" or \"5d\"");
        let (mut rest, mut seconds) = (text, 0u64);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
            let unit = match rest.as_bytes().get(digits) {
                Some(b's') => 1,
                Some(b'm') => 60,
                Some(b'h') => 3600,
                Some(b'd') => 24 * 3600,
                _ => return Err(bad()),
            };
            seconds = number.checked_mul(unit).and_then(|part| seconds.checked_add(part)).ok_or_else(bad)?;
            rest = &rest[digits + 1..];
        }
        match text {
            "" => Err(bad()),
            _ if seconds > SPAN_SECONDS_MAX => Err(format!("{text:?} is longer than ten years")),
            _ => Ok(Self(Duration::from_secs(seconds))),
        }
    }
}

/// In the largest unit that divides it.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        for (unit, name) in [(24 * 3600, 'd'), (3600, 'h'), (60, 'm')] {
            if seconds > 0 && seconds.is_multiple_of(unit) {
                return write!(f, "{}{name}", seconds / unit);
            }
        }
        write!(f, "{seconds}s")
    }
}

const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a size; write it like \"50MB\" or \"64KiB\"");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| bad())?;
        let unit = text[digits..].trim();
        let factor = match unit {
            "" => 1,
            _ => UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, n)| *n)
                .ok_or_else(bad)?,
        };
        number.checked_mul(factor).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Powers of ten first: that is how defaults are written.
        let exact = |(_, factor): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*factor);
        let decimal = UNITS[3..6].iter().find(exact);
        match decimal.or_else(|| UNITS[..3].iter().find(exact)) {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(Self)
            .map_err(|_| format!("{text:?} is not a network; write it like \"10.0.0.0/8\" or \"::1/128\""))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Nameserver {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)))
            .map(Self)
            .map_err(|_| format!("{text:?} is not a name server; write it like \"127.0.0.1:53\""))
    }
}

impl fmt::Display for Nameserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Span, Network, Nameserver, Until);

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// A bare number is a number of octets.
impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"50MB\"")
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Size, E> {
                Ok(Size(value))
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Size, E> {
                u64::try_from(value).map(Size).map_err(|_| E::custom("a size cannot be negative"))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_show_themselves() {
        for (text, seconds, shown) in [
            ("0s", 0, "0s"),
            ("90s", 90, "90s"),
            ("5m", 300, "5m"),
            ("1h30m", 5400, "90m"),
            ("4h", 14_400, "4h"),
            ("5d", 432_000, "5d"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.0.as_secs(), span.to_string().as_str()), (seconds, shown), "{text}");
        }
        for text in ["", "5", "m", "5 m", "-5m", "5w", "1.5h", "5m4", "99999999999999999999s", "9999d", "5é"]
        {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_and_show_themselves() {
        for (text, octets, shown) in
            [("50MB", 50_000_000, "50MB"), ("64KiB", 65_536, "64KiB"), ("1000", 1000, "1KB"), ("7b", 7, "7B")]
        {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (octets, shown), "{text}");
        }
        for text in ["", "MB", "5XB", "-5MB", "1.5MB", "99999999999GB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_day_counts_to_its_end() {
        let until: Until = "2027-01-31".parse().unwrap();
        assert_eq!(until.end().to_string(), "2027-02-01T00:00:00Z");
        let until: Until = "2027-01-31T12:00:00Z".parse().unwrap();
        assert_eq!(until.end().to_string(), "2027-01-31T12:00:00Z");
        assert!("soon".parse::<Until>().is_err());
        assert!("2027-02-30".parse::<Until>().is_err());
    }

    #[test]
    fn networks_and_name_servers_may_be_short() {
        assert_eq!("::1".parse::<Network>().unwrap().to_string(), "::1/128");
        assert_eq!("10.0.0.0/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
        assert!("10.0.0.0/33".parse::<Network>().is_err());
        assert_eq!("127.0.0.1".parse::<Nameserver>().unwrap().to_string(), "127.0.0.1:53");
        assert_eq!("[::1]:5353".parse::<Nameserver>().unwrap().to_string(), "[::1]:5353");
        assert!("localhost".parse::<Nameserver>().is_err());
    }
}
