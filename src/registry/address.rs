//! Which addresses may be contacted. BEHAVIOUR, Security: loopback and private ones only for
//! hosts that the operator named, or with `allowPrivate`; link-local, metadata, unspecified and
//! multicast ones only for hosts named. Looked at when connecting, after DNS, so that a name
//! cannot be pointed elsewhere between check and use.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// How far a connection may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// Public addresses.
    Public,
    /// Loopback and private ones, too.
    Private,
    /// Any: the operator named this host.
    Named,
}

/// What an address is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// On the internet.
    Public,
    /// Loopback, RFC 1918, ULA, carrier-grade NAT and other networks of an operator's own.
    Private,
    /// Link-local, metadata services, unspecified, multicast, reserved.
    Special,
}

impl Reach {
    /// Whether `address` is within reach.
    pub(super) fn covers(self, address: IpAddr) -> bool {
        match classify(address) {
            Class::Public => true,
            Class::Private => self != Reach::Public,
            Class::Special => self == Reach::Named,
        }
    }
}

/// Classifies an address; IPv6 forms that carry an IPv4 address are what they carry.
pub(super) fn classify(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => classify_v4(inner),
            None => classify_v6(address),
        },
    }
}

fn classify_v4(address: Ipv4Addr) -> Class {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0 | 224..=255, ..) | (169, 254, _) => Class::Special,
        // Alibaba's metadata service lies in the carrier-grade NAT range.
        (100, 100, 100) if address.octets()[3] == 200 => Class::Special,
        (10 | 127, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Class::Private,
        // IETF protocol assignments, documentation, benchmarking: never a public registry.
        (192, 0, 0 | 2) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => Class::Private,
        _ => Class::Public,
    }
}

fn classify_v6(address: Ipv6Addr) -> Class {
    const METADATA: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    let first = address.segments()[0];
    if address.is_loopback() {
        Class::Private
    } else if address.is_unspecified()
        || METADATA.contains(&address)
        || (first & 0xffc0) == 0xfe80
        || (first & 0xff00) == 0xff00
    {
        Class::Special
    } else if (first & 0xe000) == 0x2000 && !(first == 0x2001 && address.segments()[1] == 0) {
        // Global unicast is 2000::/3; Teredo (2001::/32) tunnels to anywhere.
        Class::Public
    } else {
        Class::Private
    }
}

/// The IPv4 address within a mapped, compatible, NAT64 or 6to4 address.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

/// An answer of DNS that is out of reach. Does not tell the address.
#[derive(Debug, thiserror::Error)]
#[error(
    "its address is private or special; name the host in `repos` or `registries` to allow that"
)]
pub(super) struct OutOfReach;

/// Resolves by the system, and drops what is out of reach.
pub(super) struct Guard {
    pub(super) reach: Reach,
    /// Hosts of the proxies in the environment: the operator chose them.
    pub(super) proxies: Arc<HashSet<String>>,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let reach = if self.proxies.contains(&host) {
            Reach::Named
        } else {
            self.reach
        };
        Box::pin(async move {
            let all: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let found = !all.is_empty();
            let mut within = all
                .into_iter()
                .filter(move |addr| reach.covers(addr.ip()))
                .peekable();
            if found && within.peek().is_none() {
                return Err(OutOfReach.into());
            }
            Ok(Box::new(within) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_classified_in_all_their_spellings() {
        let table = [
            ("8.8.8.8", Class::Public),
            ("2606:4700::1111", Class::Public),
            ("::ffff:8.8.8.8", Class::Public),
            ("127.0.0.1", Class::Private),
            ("127.255.255.254", Class::Private),
            ("::1", Class::Private),
            ("::ffff:127.0.0.1", Class::Private),
            ("::127.0.0.1", Class::Private),
            ("64:ff9b::10.0.0.1", Class::Private),
            ("2002:a00:1::", Class::Private),
            ("10.1.2.3", Class::Private),
            ("172.16.0.1", Class::Private),
            ("172.32.0.1", Class::Public),
            ("192.168.0.1", Class::Private),
            ("100.64.0.1", Class::Private),
            ("fc00::1", Class::Private),
            ("fd12:3456::1", Class::Private),
            ("2001::1", Class::Private),
            ("fec0::1", Class::Private),
            ("0.0.0.0", Class::Special),
            ("0.1.2.3", Class::Special),
            ("::", Class::Special),
            ("169.254.169.254", Class::Special),
            ("::ffff:169.254.169.254", Class::Special),
            ("64:ff9b::a9fe:a9fe", Class::Special),
            ("100.100.100.200", Class::Special),
            ("fe80::1", Class::Special),
            ("fd00:ec2::254", Class::Special),
            ("224.0.0.1", Class::Special),
            ("255.255.255.255", Class::Special),
            ("ff02::1", Class::Special),
        ];
        for (text, expected) in table {
            let address: IpAddr = text.parse().expect(text);
            assert_eq!(classify(address), expected, "{text}");
            assert_eq!(
                Reach::Public.covers(address),
                expected == Class::Public,
                "{text}"
            );
            assert_eq!(
                Reach::Private.covers(address),
                expected != Class::Special,
                "{text}"
            );
            assert!(Reach::Named.covers(address), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_loopback_is_out_of_reach() {
        let proxies = Arc::new(HashSet::new());
        let guard = Guard {
            reach: Reach::Public,
            proxies: proxies.clone(),
        };
        let error = guard
            .resolve("localhost".parse().expect("name"))
            .await
            .err()
            .expect("refused");
        assert!(error.is::<OutOfReach>(), "{error}");
        let guard = Guard {
            reach: Reach::Private,
            proxies,
        };
        assert!(
            guard
                .resolve("localhost".parse().expect("name"))
                .await
                .is_ok()
        );
    }
}
