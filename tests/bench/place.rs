//! Who is where: 200 recipient domains on 50 MX hosts. Known to the floor as to the world.

use std::net::Ipv4Addr;

/// Recipient domains.
pub const DOMAINS: u64 = 200;
/// MX hosts.
pub const HOSTS: u8 = 50;

/// Recipient domain number `number`.
pub fn domain(number: u64) -> String {
    format!("d{number}.bench.test")
}

/// The host that takes a domain's mail.
pub fn host(domain: u64) -> u8 {
    (domain % u64::from(HOSTS)) as u8
}

/// A host's name.
pub fn mx(host: u8) -> String {
    format!("mx{host}.bench.test")
}

/// A host's address.
pub fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 4, host + 1)
}

/// The host an envelope's recipient is at, by the `@dNUMBER` in it.
pub fn host_of(envelope: &[u8]) -> usize {
    let digits = memchr::memmem::rfind(envelope, b"@d").map_or(&[][..], |at| &envelope[at + 2..]);
    let number = digits
        .iter()
        .take_while(|octet| octet.is_ascii_digit())
        .fold(0u64, |number, octet| number * 10 + u64::from(octet - b'0'));
    usize::from(host(number))
}
