//! The time zone of the machine by its IANA name, as cron follows it. Not here: zones of jobs. Invariant: a name
//! that is returned is known to the zone database; otherwise it is UTC.

use std::path::Path;

/// The zone that `/etc/timezone` or the link `/etc/localtime` under `root` names; else UTC.
pub(crate) fn of_machine(root: &Path) -> String {
    let written = std::fs::read_to_string(root.join("etc/timezone")).ok();
    let linked = std::fs::read_link(root.join("etc/localtime")).ok();
    let named = written.as_deref().map(str::trim).filter(|name| is_known(name)).map(str::to_owned);
    named.or_else(|| linked.as_deref().and_then(of_link)).unwrap_or_else(|| "UTC".to_owned())
}

fn of_link(target: &Path) -> Option<String> {
    let text = target.to_str()?;
    let (_, name) = text.rsplit_once("zoneinfo/")?;
    let name = name.trim_start_matches("posix/").trim_start_matches("right/");
    is_known(name).then(|| name.to_owned())
}

fn is_known(name: &str) -> bool {
    !name.is_empty() && orloj_domain::schedule::zone(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_name_their_zone() {
        for (link, zone) in [
            ("/usr/share/zoneinfo/Europe/Berlin", Some("Europe/Berlin")),
            ("../usr/share/zoneinfo/posix/Asia/Tokyo", Some("Asia/Tokyo")),
            ("/usr/share/zoneinfo/Mars/Olympus", None),
            ("/etc/somewhere", None),
        ] {
            assert_eq!(of_link(Path::new(link)).as_deref(), zone, "{link}");
        }
        assert_eq!(of_machine(Path::new("/nowhere")), "UTC");
    }
}
