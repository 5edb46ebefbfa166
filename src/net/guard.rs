//! Which addresses we may connect to: nothing that is not globally routable, but for what
//! `network.allow_private_destinations` lists. Applied to the address actually dialled, so that a
//! name which resolves differently the second time gains nothing.
//!
//! The tables are the IANA special-purpose address registries (RFC 6890, RFC 8190) with everything
//! that is not globally reachable, multicast, and all IPv6 space that is not unicast yet. Addresses
//! that carry an IPv4 address (mapped, NAT64, 6to4) are judged by what they carry.
//! Pure; called by `net::tcp` and `net::https`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The address guard. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AddressGuard {
    allowed: std::sync::Arc<[IpNet]>,
}

impl AddressGuard {
    /// `allowed` are the exceptions.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Whether `ip` may be connected to; the error says why not.
    ///
    /// # Errors
    /// One sentence naming the address, its kind, and the setting that would allow it.
    pub fn check(&self, ip: IpAddr) -> Result<(), String> {
        let canonical = ip.to_canonical();
        let Some(kind) = special(canonical) else { return Ok(()) };
        if self.allowed.iter().any(|net| net.contains(&canonical) || net.contains(&ip)) {
            return Ok(());
        }
        Err(format!(
            "{ip} is {kind} and not globally routable; \
             network.allow_private_destinations can allow it"
        ))
    }
}

/// What kind of special address this is; `None` when it is globally routable.
fn special(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => special_v4(ip),
        IpAddr::V6(ip) => special_v6(ip),
    }
}

/// `(first address, prefix length, kind)`: IANA IPv4 Special-Purpose Address Registry, the blocks
/// that are not globally reachable, and multicast. AS112 and AMT blocks are globally reachable.
const SPECIAL_V4: &[([u8; 4], u8, &str)] = &[
    ([0, 0, 0, 0], 8, "an address of this network (RFC 791)"),
    ([10, 0, 0, 0], 8, "a private address (RFC 1918)"),
    ([100, 64, 0, 0], 10, "a carrier-grade NAT address (RFC 6598)"),
    ([127, 0, 0, 0], 8, "a loopback address (RFC 1122)"),
    ([169, 254, 0, 0], 16, "a link-local address (RFC 3927)"),
    ([172, 16, 0, 0], 12, "a private address (RFC 1918)"),
    ([192, 0, 0, 0], 24, "an IETF protocol assignment (RFC 6890)"),
    ([192, 0, 2, 0], 24, "a documentation address (RFC 5737)"),
    ([192, 88, 99, 0], 24, "a 6to4 relay address (RFC 7526)"),
    ([192, 168, 0, 0], 16, "a private address (RFC 1918)"),
    ([198, 18, 0, 0], 15, "a benchmarking address (RFC 2544)"),
    ([198, 51, 100, 0], 24, "a documentation address (RFC 5737)"),
    ([203, 0, 113, 0], 24, "a documentation address (RFC 5737)"),
    ([224, 0, 0, 0], 4, "a multicast address (RFC 5771)"),
    ([255, 255, 255, 255], 32, "the broadcast address (RFC 919)"),
    ([240, 0, 0, 0], 4, "a reserved address (RFC 1112)"),
];

/// The same for IPv6; checked before the rule that only 2000::/3 is unicast.
const SPECIAL_V6: &[([u16; 8], u8, &str)] = &[
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, "the unspecified address (RFC 4291)"),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, "a loopback address (RFC 4291)"),
    ([0, 0, 0, 0, 0, 0, 0, 0], 96, "an IPv4-compatible address (RFC 4291)"),
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "a local-use NAT64 address (RFC 8215)"),
    ([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "a discard-only address (RFC 6666)"),
    ([0x100, 0, 0, 1, 0, 0, 0, 0], 64, "a dummy address (RFC 9780)"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "a Teredo address (RFC 4380)"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "an IETF protocol assignment (RFC 2928)"),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "a documentation address (RFC 3849)"),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "a documentation address (RFC 9637)"),
    ([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "a segment-routing identifier (RFC 9602)"),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "a unique local address (RFC 4193)"),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "a link-local address (RFC 4291)"),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "a site-local address (RFC 3879)"),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "a multicast address (RFC 4291)"),
];

fn special_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let bits = u32::from(ip);
    let within = |first: [u8; 4], length: u8| {
        let shift = 32 - u32::from(length);
        bits >> shift == u32::from_be_bytes(first) >> shift
    };
    SPECIAL_V4.iter().find(|(first, length, _)| within(*first, *length)).map(|(_, _, kind)| *kind)
}

fn special_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let bits = u128::from(ip);
    let within = |first: [u16; 8], length: u8| {
        let shift = 128 - u32::from(length);
        bits >> shift == u128::from(Ipv6Addr::from(first)) >> shift
    };
    if let Some((_, _, kind)) = SPECIAL_V6.iter().find(|(first, length, _)| within(*first, *length)) {
        return Some(kind);
    }
    // RFC 6052 §2.1: the well-known NAT64 prefix; how an IPv6-only relay reaches IPv4 hosts.
    if within([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96) {
        let [.., a, b, c, d] = ip.octets();
        return special_v4(Ipv4Addr::new(a, b, c, d)).map(|_| "a NAT64 address of a special IPv4 address");
    }
    // RFC 3056 §2: 2002:V4ADDR::/48.
    if within([0x2002, 0, 0, 0, 0, 0, 0, 0], 16) {
        let [_, _, a, b, c, d, ..] = ip.octets();
        return special_v4(Ipv4Addr::new(a, b, c, d)).map(|_| "a 6to4 address of a special IPv4 address");
    }
    // RFC 4291 §2.4, IANA IPv6 address space: all unicast so far is below 2000::/3.
    (!within([0x2000, 0, 0, 0, 0, 0, 0, 0], 3)).then_some("an address outside 2000::/3 (RFC 4291)")
}

#[cfg(test)]
mod tests;
