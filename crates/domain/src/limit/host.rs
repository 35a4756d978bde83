//! Hosts of HTTP targets: how a limit names one, and which one a URL is at. Not here: what is done with it. Invariant: two
//! URLs that are at the same host and port by name give the same text.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::id::HttpHost;

/// True if the text is a host in lower case, with or without a port.
pub(crate) fn is_host(text: &str) -> bool {
    let (host, port) = port_of(text).map_or((text, None), |(host, port)| (host, Some(port)));
    port.is_none_or(is_port) && (is_name(host) || is_address(host))
}

/// Host and port of a text that has both, whatever they are.
pub(crate) fn port_of(text: &str) -> Option<(&str, &str)> {
    // The colons of an IPv6 address are within its brackets.
    let (host, port) = text.rsplit_once(':')?;
    (!port.contains(']')).then_some((host, port))
}

fn is_port(text: &str) -> bool {
    // So that there is one way to write it.
    text.parse::<u16>().is_ok_and(|port| port > 0 && port.to_string() == text)
}

fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(is_allowed)
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_address(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok_and(|address| address.to_string() == inner))
}

/// The host and the port of an `http` or `https` URL, in lower case, with the scheme's own port where it names none; `None`
/// if it has no host that a limit could name.
#[must_use]
pub fn host_of_url(url: &str) -> Option<HttpHost> {
    let (scheme, rest) = url.split_once("://")?;
    let port_default = match scheme.to_ascii_lowercase().as_str() {
        "http" => "80",
        "https" => "443",
        _ => return None,
    };
    let authority = rest.split(['/', '\\', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_ascii_lowercase();
    let (host, port) = port_of(&authority).unwrap_or((&authority, ""));
    // A colon with nothing behind it is as good as none.
    let port = match port.trim_start_matches('0') {
        "" => port_default,
        port => port,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => format!("[{}]", address.parse::<Ipv6Addr>().ok()?),
        None => host.parse::<Ipv4Addr>().map_or_else(|_| host.to_owned(), |address| address.to_string()),
    };
    HttpHost::new(&format!("{host}:{port}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_written_in_one_way() {
        for text in
            ["api.example.com", "api.example.com:8443", "localhost", "10.0.0.1", "[::1]", "[2001:db8::1]:80", "a_b-c"]
        {
            assert!(is_host(text), "{text}");
        }
        for text in [
            "",
            "API.example.com",
            "https://api.example.com",
            "api.example.com/x",
            "api.example.com.",
            "a..b",
            "api.example.com:",
            "api.example.com:0",
            "api.example.com:080",
            "api.example.com:65536",
            "user@api.example.com",
            "*.example.com",
            "::1",
            "[::0001]",
            "bücher.example",
        ] {
            assert!(!is_host(text), "{text}");
        }
    }

    #[test]
    fn a_url_is_at_one_host_and_port() {
        for (url, host) in [
            ("https://api.example.com/run", Some("api.example.com:443")),
            ("http://API.Example.com", Some("api.example.com:80")),
            ("https://api.example.com:8443?x=a/b@c", Some("api.example.com:8443")),
            ("https://api.example.com:/", Some("api.example.com:443")),
            ("https://api.example.com:0443/", Some("api.example.com:443")),
            ("https://api.example.com./#f", Some("api.example.com:443")),
            ("http://10.0.0.1:1410/", Some("10.0.0.1:1410")),
            ("http://[2001:DB8:0::1]/", Some("[2001:db8::1]:80")),
            ("http://[::1]:8080/a:b", Some("[::1]:8080")),
            ("https://bücher.example/", None),
            ("ftp://example.com/", None),
            ("https://", None),
        ] {
            assert_eq!(host_of_url(url).as_ref().map(HttpHost::as_str), host, "{url}");
            if let Some(host) = host_of_url(url) {
                assert_eq!(Some(host.without_port().as_str()), port_of(host.as_str()).map(|(host, _)| host));
            }
        }
    }
}
