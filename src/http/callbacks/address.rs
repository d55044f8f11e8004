//! Which addresses a callback may go to.
//!
//! Owns: the table of what is not public, after the IANA special-purpose registries, and the exceptions an operator makes. Never: looks a
//! name up. Invariant: whatever is not known to be public unicast is refused, in whichever of its spellings an address comes.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

/// Special-purpose, private, shared, reserved and multicast. AS112 and AMT anycast are left out: they are reachable from anywhere.
const NOT_PUBLIC_V4: [&str; 15] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];
/// All that is given out as global unicast; the rest is special, local, multicast or nobody's.
const GLOBAL_V6: &str = "2000::/3";
/// Within that: protocol assignments (Teredo, benchmarking, ORCHID), documentation, and 6to4, which leads to any IPv4 address.
const NOT_PUBLIC_V6: [&str; 4] = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"];
/// NAT64: leads to the IPv4 address in its last four bytes.
const NAT64: &str = "64:ff9b::/96";

struct Table {
    not_public: Vec<IpNet>,
    global_v6: IpNet,
    nat64: IpNet,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let net = |text: &str| text.parse::<IpNet>().expect("the table holds networks");
    Table {
        not_public: NOT_PUBLIC_V4
            .iter()
            .chain(&NOT_PUBLIC_V6)
            .map(|text| net(text))
            .collect(),
        global_v6: net(GLOBAL_V6),
        nat64: net(NAT64),
    }
});

/// A network, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// A text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a network such as 10.0.0.0/8 or fd00::/8, or an address")]
pub struct NoNetwork;

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Network, NoNetwork> {
        let net = text.parse::<IpNet>();
        let net = net.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(Network).map_err(|_| NoNetwork)
    }
}

/// Where calls may go: public addresses, and these.
#[derive(Debug, Clone, Default)]
pub struct Networks(Arc<[Network]>);

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Networks(networks.into_iter().collect())
    }
}

impl Networks {
    pub(super) fn permit(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        if self.0.iter().any(|Network(net)| net.contains(&ip)) {
            return true;
        }
        match leads_to(ip) {
            Some(inner) => self.permit(IpAddr::V4(inner)),
            None => is_public(ip),
        }
    }
}

/// The IPv4 address that a NAT64 address stands for.
fn leads_to(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V6(v6) if TABLE.nat64.contains(&ip) => Some(last_four(v6)),
        _ => None,
    }
}

fn last_four(ip: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = ip.octets();
    Ipv4Addr::new(a, b, c, d)
}

fn is_public(ip: IpAddr) -> bool {
    let is_global = ip.is_ipv4() || TABLE.global_v6.contains(&ip);
    is_global && !TABLE.not_public.iter().any(|net| net.contains(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_public_unicast_addresses_are_permitted() {
        let none = Networks::default();
        for good in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2606:4700::1111",
            "2a00:1450:4001:81b::200e",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(none.permit(ip(good)), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:808:808::1",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!none.permit(ip(bad)), "{bad}");
        }
    }

    #[test]
    fn an_operator_may_permit_more_and_nothing_else_with_it() {
        let networks: Networks = ["10.1.0.0/16", "127.0.0.1", "fd00::/8"]
            .iter()
            .map(|text| text.parse::<Network>().unwrap())
            .collect();
        for good in [
            "10.1.2.3",
            "127.0.0.1",
            "fd00::9",
            "::ffff:10.1.0.1",
            "64:ff9b::a01:1",
            "8.8.8.8",
        ] {
            assert!(networks.permit(ip(good)), "{good}");
        }
        for bad in ["10.2.0.1", "127.0.0.2", "fc00::1", "::1"] {
            assert!(!networks.permit(ip(bad)), "{bad}");
        }
        for bad in ["", "10.0.0.0/33", "localhost", "10.0.0", "::/129", "10.0.0.0/8,"] {
            assert_eq!(bad.parse::<Network>(), Err(NoNetwork), "{bad}");
        }
    }
}
