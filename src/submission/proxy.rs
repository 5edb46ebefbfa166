//! The header of the PROXY protocol, versions 1 and 2 (haproxy's `proxy-protocol.txt`): who a connection
//! is really from, told by a proxy in front of us before anything else.
//!
//! Ours and not a library's: the known ones do not move any more, and what is believed here decides who
//! may relay. Reads exactly the header's octets and never one of what follows, which may be a TLS
//! handshake already. Strict and bounded: what is not a header of a TCP connection is an error, and the
//! connection is closed. Whether a peer may say such a thing is the listener's `proxy_protocol`.
//! Called by `serve`, before TLS, for connections from listed networks alone.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Octets that tell the versions apart: fewer than the shortest header of either has.
const HEAD: usize = 12;
/// How a header of version 2 begins.
const SIGNATURE: &[u8; HEAD] = b"\r\n\r\n\0\r\nQUIT\n";
/// Octets of a line of version 1 with its CRLF at most.
const LINE_BYTES_MAX: usize = 107;
/// Octets after the fixed part of version 2 at most: addresses, and TLVs, which are not looked at. Enough
/// for a proxy that passes on names of a client certificate.
const REST_BYTES_MAX: usize = 4096;
/// Octets of the addresses in version 2.
const INET: usize = 12;
const INET6: usize = 36;
const UNIX: usize = 216;

/// Who a proxy says it speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    /// A client.
    Client(SocketAddr),
    /// Itself, e.g. to see whether we live.
    Proxy,
    /// Somebody it has no address of: such a client is in no trusted network, wherever the proxy is.
    Unknown,
}

/// Why a header is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    /// The connection ended or broke within it.
    #[error("the connection ended within the PROXY header: {0}")]
    Io(#[from] io::Error),
    /// Something else came first.
    #[error("no PROXY header")]
    Missing,
    /// Longer than any can be.
    #[error("PROXY header too long")]
    TooLong,
    /// What is wrong with it.
    #[error("malformed PROXY header: {0}")]
    Malformed(&'static str),
}

/// Reads a header and nothing after it.
///
/// # Errors
/// See [`ProxyError`]; the connection must not be used any more.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Speaker, ProxyError> {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await?;
    if head == *SIGNATURE {
        return read_binary(stream).await;
    }
    if !head.starts_with(b"PROXY ") {
        return Err(ProxyError::Missing);
    }
    let mut line = head.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE_BYTES_MAX {
            return Err(ProxyError::TooLong);
        }
        line.push(stream.read_u8().await?);
    }
    parse_line(&line[..line.len() - 2]).map_err(ProxyError::Malformed)
}

async fn read_binary<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Speaker, ProxyError> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await?;
    let [version, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > REST_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    parse_binary(version, family, &rest).map_err(ProxyError::Malformed)
}

/// A line of version 1 without its CRLF.
fn parse_line(line: &[u8]) -> Result<Speaker, &'static str> {
    if !line.iter().all(|b| matches!(b, b' '..=b'~')) {
        return Err("not one line of printable ASCII");
    }
    let line = str::from_utf8(line).map_err(|_| "not ASCII")?;
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        // What follows that word says nothing.
        [_, "UNKNOWN", ..] => Ok(Speaker::Unknown),
        [_, "TCP4", from, to, from_port, to_port] => {
            client::<Ipv4Addr>([from, to], [from_port, to_port]).ok_or("a bad address or port")
        }
        [_, "TCP6", from, to, from_port, to_port] => {
            client::<Ipv6Addr>([from, to], [from_port, to_port]).ok_or("a bad address or port")
        }
        _ => Err("not TCP4, TCP6 or UNKNOWN with two addresses and two ports"),
    }
}

/// All four must be sound; the client's count.
fn client<A: std::str::FromStr + Into<IpAddr>>(addresses: [&str; 2], ports: [&str; 2]) -> Option<Speaker> {
    let [Some(from), Some(_)] = addresses.map(|text| text.parse::<A>().ok()) else { return None };
    let [Some(port), Some(_)] = ports.map(port) else { return None };
    Some(Speaker::Client(SocketAddr::new(from.into(), port)))
}

fn port(text: &str) -> Option<u16> {
    let plain = text == "0" || text.starts_with(|c: char| matches!(c, '1'..='9'));
    let digits = plain && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Version 2 from its version octet on; `rest` is as long as it says.
fn parse_binary(version: u8, family: u8, rest: &[u8]) -> Result<Speaker, &'static str> {
    match version {
        // Whatever addresses are there, they are to be ignored.
        0x20 => return Ok(Speaker::Proxy),
        0x21 => {}
        _ => return Err("a version other than 2, or a command other than LOCAL and PROXY"),
    }
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    match family {
        0x00 => Ok(Speaker::Unknown),
        0x11 if rest.len() >= INET => {
            let ip: [u8; 4] = rest[..4].try_into().map_err(|_| "too short")?;
            Ok(Speaker::Client(SocketAddr::new(Ipv4Addr::from(ip).into(), port(8))))
        }
        0x21 if rest.len() >= INET6 => {
            let ip: [u8; 16] = rest[..16].try_into().map_err(|_| "too short")?;
            Ok(Speaker::Client(SocketAddr::new(Ipv6Addr::from(ip).into(), port(32))))
        }
        0x31 if rest.len() >= UNIX => Ok(Speaker::Unknown),
        0x11 | 0x21 | 0x31 => Err("shorter than its addresses"),
        _ => Err("not of a stream over IPv4, IPv6 or a Unix socket"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads from `wire` in one piece; what was said, and what is left.
    fn spoken(wire: &[u8]) -> (Result<Speaker, String>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut left = wire;
            let said = read(&mut left).await.map_err(|error| error.to_string());
            (said, left.to_vec())
        })
    }

    fn from(text: &str) -> Result<Speaker, String> {
        Ok(Speaker::Client(text.parse().unwrap()))
    }

    #[test]
    fn lines_of_version_1_name_the_client() {
        for (line, said) in [
            ("PROXY TCP4 198.51.100.7 192.0.2.1 4711 25", from("198.51.100.7:4711")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 4711 25", from("[2001:db8::7]:4711")),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535", from("255.255.255.255:65535")),
            ("PROXY UNKNOWN", Ok(Speaker::Unknown)),
            ("PROXY UNKNOWN ffff::1 whatever 1 2 3", Ok(Speaker::Unknown)),
        ] {
            let wire = format!("{line}\r\nEHLO x\r\n");
            assert_eq!(spoken(wire.as_bytes()), (said, b"EHLO x\r\n".to_vec()), "{line}");
        }
    }

    #[test]
    fn what_is_no_line_of_version_1_is_refused() {
        for line in [
            "PROXY TCP4 198.51.100.7 192.0.2.1 4711",
            "PROXY TCP4 198.51.100.7 192.0.2.1 4711 25 ",
            "PROXY TCP4 198.51.100.7  192.0.2.1 4711 25",
            "PROXY TCP4 198.51.100.007 192.0.2.1 4711 25",
            "PROXY TCP4 2001:db8::7 192.0.2.1 4711 25",
            "PROXY TCP6 198.51.100.7 192.0.2.1 4711 25",
            "PROXY TCP4 198.51.100.7 192.0.2.256 4711 25",
            "PROXY TCP4 198.51.100.7 192.0.2.1 04711 25",
            "PROXY TCP4 198.51.100.7 192.0.2.1 65536 25",
            "PROXY TCP4 198.51.100.7 192.0.2.1 4711 -1",
            "PROXY UDP4 198.51.100.7 192.0.2.1 4711 25",
            "PROXY tcp4 198.51.100.7 192.0.2.1 4711 25",
            "PROXY TCP4 198.51.100.7\n192.0.2.1 4711 25",
            "PROXY UNKNOWN\0",
            "PROXY UNKNOWNS",
        ] {
            let (said, _) = spoken(format!("{line}\r\nEHLO x\r\n").as_bytes());
            assert!(said.is_err_and(|text| text.starts_with("malformed")), "{line}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
        let (said, left) = spoken(endless.as_bytes());
        assert_eq!((said.unwrap_err().as_str(), endless.len() - left.len()), ("PROXY header too long", 107));
        for first in
            [&b"EHLO client.example\r\n"[..], b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0", b"proxy TCP4 1"]
        {
            assert_eq!(spoken(first).0.unwrap_err(), "no PROXY header");
        }
        assert!(spoken(b"PROXY TCP4 1").0.unwrap_err().starts_with("the connection ended"));
    }

    /// A header of version 2.
    fn binary(version: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version, family], &length, rest].concat()
    }

    #[test]
    fn version_2_names_the_client_and_its_tlvs_are_skipped() {
        let inet = [&[198, 51, 100, 7, 192, 0, 2, 1][..], &[0x12, 0x67, 0, 25]].concat();
        let ip6: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let inet6 = [&ip6.octets()[..], &[0; 16], &[0x12, 0x67, 0, 25]].concat();
        let tlvs = [&[0x02, 0, 4][..], b"name", &[0x20, 0xff, 0xff, 1]].concat();
        for (version, family, rest, said) in [
            (0x21, 0x11, inet.clone(), from("198.51.100.7:4711")),
            (0x21, 0x11, [&inet[..], &tlvs].concat(), from("198.51.100.7:4711")),
            (0x21, 0x11, [&inet[..], &[0; 4000]].concat(), from("198.51.100.7:4711")),
            (0x21, 0x21, inet6.clone(), from("[2001:db8::7]:4711")),
            (0x21, 0x21, [&inet6[..], &tlvs].concat(), from("[2001:db8::7]:4711")),
            (0x21, 0x31, vec![b'/'; 216], Ok(Speaker::Unknown)),
            (0x21, 0x00, Vec::new(), Ok(Speaker::Unknown)),
            (0x21, 0x00, tlvs.clone(), Ok(Speaker::Unknown)),
            (0x20, 0x00, Vec::new(), Ok(Speaker::Proxy)),
            // The addresses of a LOCAL connection say nothing.
            (0x20, 0x11, inet.clone(), Ok(Speaker::Proxy)),
            (0x20, 0x77, vec![1], Ok(Speaker::Proxy)),
        ] {
            let wire = [&binary(version, family, &rest)[..], b"EHLO x\r\n"].concat();
            assert_eq!(spoken(&wire), (said, b"EHLO x\r\n".to_vec()), "{version:x} {family:x}");
        }
        for (version, family, rest, text) in [
            (0x11, 0x11, &inet[..], "a version"),
            (0x22, 0x11, &inet[..], "a version"),
            (0x21, 0x11, &inet[..11], "shorter"),
            (0x21, 0x21, &inet6[..35], "shorter"),
            (0x21, 0x31, &[0; 215][..], "shorter"),
            (0x21, 0x12, &inet[..], "not of a stream"),
            (0x21, 0x22, &inet6[..], "not of a stream"),
            (0x21, 0x10, &inet[..], "not of a stream"),
            (0x21, 0x41, &inet[..], "not of a stream"),
        ] {
            let error = spoken(&binary(version, family, rest)).0.unwrap_err();
            assert!(error.starts_with(&format!("malformed PROXY header: {text}")), "{error}");
        }
        assert_eq!(spoken(&binary(0x21, 0x11, &[0; 4097])).0.unwrap_err(), "PROXY header too long");
        let cut = binary(0x21, 0x11, &inet);
        for octets in 0..cut.len() {
            assert!(spoken(&cut[..octets]).0.is_err(), "{octets}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic_and_none_beyond_the_bounds_are_read(
            start in prop_oneof![Just(SIGNATURE.to_vec()), Just(b"PROXY TCP4 1.2.3.4 ".to_vec()), Just(vec![])],
            rest in prop::collection::vec(any::<u8>(), 0..300)
        ) {
            let wire = [start, rest].concat();
            let (said, left) = spoken(&wire);
            prop_assert!(wire.len() - left.len() <= HEAD + 4 + REST_BYTES_MAX);
            if let Ok(Speaker::Client(address)) = said {
                // Only what such a header says.
                prop_assert!(wire.starts_with(SIGNATURE) || wire.starts_with(b"PROXY TCP"));
                prop_assert!(wire.starts_with(SIGNATURE) || address.to_string().len() < LINE_BYTES_MAX);
            }
        }
    }
}
