//! The guard against the registries it was made from.

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn what_is_not_globally_routable_is_refused() {
    let guard = AddressGuard::default();
    let bad = |text: &str| {
        let error = guard.check(ip(text)).expect_err(text);
        assert!(error.starts_with(text), "{error}");
        assert!(error.contains("network.allow_private_destinations"), "{error}");
    };
    for text in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
    ] {
        bad(text);
    }
    for text in [
        "::",
        "::1",
        "::192.0.2.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "100::1",
        "100:0:0:1::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:2::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:a00:1::1",
        "2002:c0a8:101::1",
        "3fff::1",
        "3fff:fff::1",
        "5f00::1",
        "fc00::1",
        "fdff::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "4000::1",
        "1::1",
    ] {
        assert!(guard.check(ip(text)).is_err(), "{text}");
    }
}

#[test]
fn what_is_globally_routable_passes() {
    let guard = AddressGuard::default();
    for text in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "128.0.0.1",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.31.196.1",
        "192.175.48.1",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::1",
        "2001:200::1",
        "2001:4860:4860::8888",
        "64:ff9b::101:101",
        "2002:101:101::1",
        "::ffff:1.1.1.1",
        "2620:4f:8000::1",
        "3ffe::1",
    ] {
        assert_eq!(guard.check(ip(text)), Ok(()), "{text}");
    }
}

#[test]
fn exceptions_open_what_they_list_and_nothing_beside() {
    let nets = ["127.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap());
    let guard = AddressGuard::new(nets.to_vec());
    for text in ["127.0.0.2", "::ffff:127.0.0.2", "fd00::1", "1.1.1.1"] {
        assert_eq!(guard.check(ip(text)), Ok(()), "{text}");
    }
    for text in ["10.0.0.1", "::1", "fc00::1"] {
        assert!(guard.check(ip(text)).is_err(), "{text}");
    }
}

/// IANA IPv4 Special-Purpose Address Registry (RFC 6890, RFC 8190), as of 2025-10: block, and whether it
/// is globally reachable; what says N/A there is not.
const REGISTRY_V4: &[(&str, bool)] = &[
    ("0.0.0.0/8", false),
    ("0.0.0.0/32", false),
    ("10.0.0.0/8", false),
    ("100.64.0.0/10", false),
    ("127.0.0.0/8", false),
    ("169.254.0.0/16", false),
    ("172.16.0.0/12", false),
    ("192.0.0.0/24", false),
    ("192.0.0.0/29", false),
    ("192.0.0.8/32", false),
    ("192.0.0.9/32", true),
    ("192.0.0.10/32", true),
    ("192.0.0.170/32", false),
    ("192.0.0.171/32", false),
    ("192.0.2.0/24", false),
    ("192.31.196.0/24", true),
    ("192.52.193.0/24", true),
    ("192.88.99.0/24", false),
    ("192.88.99.2/32", false),
    ("192.168.0.0/16", false),
    ("192.175.48.0/24", true),
    ("198.18.0.0/15", false),
    ("198.51.100.0/24", false),
    ("203.0.113.0/24", false),
    ("240.0.0.0/4", false),
    ("255.255.255.255/32", false),
    // IPv4 Multicast Address Space Registry.
    ("224.0.0.0/4", false),
];

/// IANA IPv6 Special-Purpose Address Registry, as of 2025-10, likewise.
const REGISTRY_V6: &[(&str, bool)] = &[
    ("::1/128", false),
    ("::/128", false),
    ("::ffff:0:0/96", false),
    ("64:ff9b::/96", true),
    ("64:ff9b:1::/48", false),
    ("100::/64", false),
    ("100:0:0:1::/64", false),
    ("2001::/23", false),
    ("2001::/32", false),
    ("2001:1::1/128", true),
    ("2001:1::2/128", true),
    ("2001:1::3/128", true),
    ("2001:2::/48", false),
    ("2001:3::/32", true),
    ("2001:4:112::/48", true),
    ("2001:10::/28", false),
    ("2001:20::/28", true),
    ("2001:30::/28", true),
    ("2001:db8::/32", false),
    ("2002::/16", false),
    ("2620:4f:8000::/48", true),
    ("3fff::/20", false),
    ("5f00::/16", false),
    ("fc00::/7", false),
    ("fe80::/10", false),
    // Internet Protocol Version 6 Address Space: not unicast, deprecated, or nobody's.
    ("::/8", false),
    ("100::/8", false),
    ("200::/7", false),
    ("400::/6", false),
    ("800::/5", false),
    ("1000::/4", false),
    ("4000::/3", false),
    ("6000::/3", false),
    ("8000::/3", false),
    ("a000::/3", false),
    ("c000::/3", false),
    ("e000::/4", false),
    ("f000::/5", false),
    ("f800::/6", false),
    ("fe00::/9", false),
    ("fec0::/10", false),
    ("ff00::/8", false),
];

/// Blocks that carry an IPv4 address and are judged by it: not of themselves.
const CARRIERS: [&str; 3] = ["::ffff:0:0/96", "64:ff9b::/96", "2002::/16"];

/// First and last address of a block, and some between.
fn samples(net: IpNet) -> Vec<IpAddr> {
    let (first, last) = match net {
        IpNet::V4(net) => (u128::from(u32::from(net.network())), u128::from(u32::from(net.broadcast()))),
        IpNet::V6(net) => (u128::from(net.network()), u128::from(net.broadcast())),
    };
    let steps = [0, 1, 2, 3, 5, 7, 11, 13, 16];
    let at = |step: u128| first + (last - first) / 16 * step;
    let numbers = steps.map(at).into_iter().chain([last]);
    let address = |number: u128| match net {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap())),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    };
    numbers.map(address).collect()
}

fn nets(registry: &[(&str, bool)], global: bool) -> Vec<IpNet> {
    registry.iter().filter(|(_, is)| *is == global).map(|(net, _)| net.parse().unwrap()).collect()
}

#[test]
fn every_block_of_the_registries_is_judged_as_they_say() {
    let guard = AddressGuard::default();
    let carriers = CARRIERS.map(|net| net.parse::<IpNet>().unwrap());
    for registry in [REGISTRY_V4, REGISTRY_V6] {
        let global = nets(registry, true);
        for net in nets(registry, false).into_iter().filter(|net| !carriers.contains(net)) {
            for ip in samples(net) {
                // A block inside is judged by its own row.
                let inside = global.iter().chain(&carriers).any(|net| net.contains(&ip));
                assert!(inside || guard.check(ip).is_err(), "{ip} of {net}");
            }
        }
        // Anycast services of 192.0.0.0/24 and 2001::/23 are no mail hosts: refused with their block.
        let refused = ["192.0.0.0/24", "2001::/23"].map(|net| net.parse::<IpNet>().unwrap());
        for net in global.into_iter().filter(|net| !carriers.contains(net)) {
            for ip in samples(net) {
                let expected = !refused.iter().any(|refused| refused.contains(&ip));
                assert_eq!(guard.check(ip).is_ok(), expected, "{ip} of {net}");
            }
        }
    }
}

#[test]
fn an_ipv6_address_that_carries_an_ipv4_address_is_judged_by_it() {
    let guard = AddressGuard::default();
    let inner = nets(REGISTRY_V4, false).into_iter().chain(["1.1.1.1/32".parse().unwrap()]);
    for ip in inner.flat_map(samples) {
        let IpAddr::V4(ip) = ip else { panic!("{ip}") };
        let [a, b, c, d] = ip.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let expected = guard.check(IpAddr::V4(ip)).is_ok();
        for carrier in [
            Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        ] {
            assert_eq!(guard.check(IpAddr::V6(carrier)).is_ok(), expected, "{carrier} carries {ip}");
        }
        // Deprecated, of a translator of this network, or of one that anybody may run: never.
        for carrier in [
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !high, !low),
        ] {
            assert!(guard.check(IpAddr::V6(carrier)).is_err(), "{carrier} carries {ip}");
        }
    }
}

#[test]
fn an_exception_does_not_open_the_ways_around_it() {
    // Whoever allows an inner network means the network, not a translator or a tunnel that leads there.
    let guard = AddressGuard::new(vec!["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(guard.check(ip("10.0.0.1")), Ok(()));
    assert_eq!(guard.check(ip("::ffff:10.0.0.1")), Ok(()));
    for text in ["64:ff9b::a00:1", "2002:a00:1::1", "::10.0.0.1"] {
        assert!(guard.check(ip(text)).is_err(), "{text}");
    }
}
