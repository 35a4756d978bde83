//! Where a request of a job may go: not into the runner's own network unless somebody allowed it, or a job would reach what
//! trusts that network (cloud metadata, databases, admin pages). Not here: sending (`http`). Invariant: the address that is
//! connected to is one that was checked; a name is looked up once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

/// Part of every refusal.
pub(super) const REFUSED: &str = "where jobs may not go";

/// What is allowed in spite of where it is: networks, and hosts by the name that jobs use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Egress {
    networks: Vec<IpNet>,
    hosts: Vec<String>,
}

impl Egress {
    /// Reads entries like `10.0.0.0/8`, `192.168.1.7` and `billing.internal`; an entry that is no address is a host.
    pub(crate) fn new(allowed: &[String]) -> Self {
        let mut this = Self::default();
        for entry in allowed {
            match (entry.parse::<IpNet>(), entry.parse::<IpAddr>()) {
                (Ok(network), _) => this.networks.push(network),
                (Err(_), Ok(address)) => this.networks.push(address.into()),
                (Err(_), Err(_)) => this.hosts.push(entry.to_ascii_lowercase()),
            }
        }
        this
    }

    /// Checks the host of a URL as far as that says where it leads: an address does, a name does not.
    ///
    /// # Errors
    /// A sentence that names the address and the setting.
    pub(crate) fn check_host(&self, host: &str) -> Result<(), String> {
        match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => self.check(host, address),
            Err(_) => Ok(()),
        }
    }

    fn check(&self, host: &str, address: IpAddr) -> Result<(), String> {
        let is_allowed = self.hosts.contains(&host.to_ascii_lowercase())
            || self.networks.iter().any(|network| network.contains(&address));
        match inner(address) {
            Some(what) if !is_allowed => Err(format!(
                "{host} is at {address}, {what}, {REFUSED}; to allow it, add `{host}` or its network to the runner's setting \
                 `runner.http.allow`"
            )),
            Some(_) | None => Ok(()),
        }
    }
}

/// What makes an address one of the inside; `None` for those of the public network.
fn inner(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => inner_v4(address),
        IpAddr::V6(address) => inner_v6(address),
    }
}

/// By the IANA registry of special-purpose addresses (RFC 6890 and its updates).
fn inner_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Some("an address of this host"),
        (127, ..) => Some("a loopback address"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some("a private address"),
        (100, 64..=127, _) => Some("a shared address of providers"),
        (169, 254, _) => Some("a link-local address, as cloud metadata has"),
        (192, 0, 0 | 2) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113) | (192, 88, 99) => {
            Some("a reserved address")
        }
        (224..=239, ..) => Some("a multicast address"),
        (240.., ..) => Some("a reserved address"),
        _ => None,
    }
}

fn inner_v6(address: Ipv6Addr) -> Option<&'static str> {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return inner_v4(mapped);
    }
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        inner_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0, ..] => Some("an address of this host"),
        // NAT64 (RFC 6052) and 6to4 (RFC 3056) carry an IPv4 address.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        [0x64, 0xff9b, 1, ..] => Some("an address of a local translator"),
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0xdb8, ..] | [0x100, 0, 0, 0, ..] | [0x3fff, 0..=0x0fff, ..] => {
            Some("a reserved address")
        }
        [0xfc00..=0xfdff, ..] => Some("a private address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xfec0..=0xfeff, ..] => Some("a private address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        _ => None,
    }
}

/// Looks names up, and answers only if a job may go to every address that a name has.
#[derive(Debug, Clone)]
pub(crate) struct CheckedResolver {
    egress: Arc<Egress>,
    /// A look-up blocks a thread for as long as the name server is silent, and processes are ended by the same threads.
    lookups: Arc<Semaphore>,
}

/// Most look-ups at once; less than `BLOCKING_THREADS_MAX` of the runner.
const LOOKUPS_MAX: usize = 4;

impl CheckedResolver {
    pub(crate) fn new(egress: Arc<Egress>) -> Self {
        Self { egress, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, lookups) = (Arc::clone(&self.egress), Arc::clone(&self.lookups));
        Box::pin(async move {
            let permit = lookups.acquire_owned().await?;
            let host = name.as_str().to_owned();
            let asked = host.clone();
            let found: Vec<SocketAddr> = tokio::task::spawn_blocking(move || {
                // Held until the system answers, even if nobody waits for it any more.
                let _permit = permit;
                (asked.as_str(), 0).to_socket_addrs().map(Iterator::collect)
            })
            .await??;
            for address in &found {
                egress.check(&host, address.ip())?;
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inside_is_told_from_the_outside() {
        for (address, is_inside) in [
            ("127.0.0.1", true),
            ("127.255.0.3", true),
            ("0.0.0.0", true),
            ("10.1.2.3", true),
            ("172.16.0.1", true),
            ("172.32.0.1", false),
            ("192.168.1.1", true),
            ("169.254.169.254", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("192.0.0.8", true),
            ("198.19.255.255", true),
            ("224.0.0.1", true),
            ("255.255.255.255", true),
            ("8.8.8.8", false),
            ("193.99.144.80", false),
            ("::1", true),
            ("::", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:8.8.8.8", false),
            ("::127.0.0.1", true),
            ("64:ff9b::a9fe:a9fe", true),
            ("64:ff9b::808:808", false),
            ("64:ff9b:1::1", true),
            ("2002:7f00:1::", true),
            ("2002:808:808::", false),
            ("2001::1", true),
            ("2001:db8::1", true),
            ("fc00::1", true),
            ("fd12::1", true),
            ("fe80::1", true),
            ("ff02::1", true),
            ("2a02:2e0:3fe::1", false),
        ] {
            assert_eq!(inner(address.parse().expect("an address")).is_some(), is_inside, "{address}");
        }
    }

    #[test]
    fn what_is_allowed_is_named_by_network_address_or_host() {
        let allowed = ["10.0.0.0/8", "192.168.1.7", "fd00::/8", "Billing.internal"].map(str::to_owned);
        let egress = Egress::new(&allowed);
        for (host, address, is_allowed) in [
            ("db", "10.9.8.7", true),
            ("db", "192.168.1.7", true),
            ("db", "192.168.1.8", false),
            ("db", "fd00::5", true),
            ("billing.internal", "127.0.0.1", true),
            ("other.internal", "127.0.0.1", false),
        ] {
            let checked = egress.check(host, address.parse().expect("an address"));
            assert_eq!(checked.is_ok(), is_allowed, "{host} at {address}: {checked:?}");
        }
        let said = Egress::default().check_host("[::1]").expect_err("refused");
        assert!(said.contains("a loopback address") || said.contains("this host"), "{said}");
        assert!(said.contains("runner.http.allow"), "{said}");
        assert!(Egress::default().check_host("example.org").is_ok(), "a name says nothing yet");
    }
}
