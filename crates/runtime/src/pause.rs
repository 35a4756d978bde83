//! Named places where a test can kill or stop this very process: `ORLOJ_PAUSE=<point>:<kill|stop>[:<nth>]`.
//! Not here: the places themselves. Invariant: without the feature `pause-points`, which only test builds have,
//! a point is nothing at all, whatever the environment says.

/// A place that a test may name. Does nothing unless this very point was armed.
#[cfg(not(feature = "pause-points"))]
#[inline]
pub fn point(_name: &'static str) {}

/// A place that a test may name. Does nothing unless this very point was armed; the armed one takes effect once,
/// on its `nth` passing (1 if not given), and says its name on stderr first.
#[cfg(feature = "pause-points")]
pub fn point(name: &'static str) {
    if let Some(armed) = armed::get()
        && armed.point == name
        && armed.passings.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1 == armed.nth
    {
        armed.take_effect();
    }
}

#[cfg(feature = "pause-points")]
mod armed {
    use std::io::Write;
    use std::process::Command;
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicU32;

    pub(super) struct Armed {
        pub(super) point: String,
        pub(super) nth: u32,
        pub(super) passings: AtomicU32,
        signal: &'static str,
    }

    #[allow(clippy::disallowed_methods, reason = "test builds only: a test arms a process that it starts")]
    pub(super) fn get() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        ARMED.get_or_init(|| parse(&std::env::var("ORLOJ_PAUSE").ok()?)).as_ref()
    }

    fn parse(text: &str) -> Option<Armed> {
        let mut parts = text.split(':');
        let point = parts.next()?.to_owned();
        let signal = match parts.next()? {
            "kill" => "-KILL",
            "stop" => "-STOP",
            _ => return None,
        };
        let nth = parts.next().map_or(Some(1), |nth| nth.parse().ok())?;
        Some(Armed { point, nth, passings: AtomicU32::new(0), signal })
    }

    impl Armed {
        /// The thread that passed the point goes no further until the signal has arrived.
        pub(super) fn take_effect(&self) {
            // A test waits for this line; a closed stderr is no reason to go on.
            let _ = writeln!(std::io::stderr(), "pause point {}", self.point);
            // The shell's own `kill`: a small machine has no other.
            let order = format!("kill {} {}", self.signal, std::process::id());
            let outcome = Command::new("sh").args(["-c", &order]).status();
            if !outcome.is_ok_and(|status| status.success()) {
                std::process::abort();
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::parse;

        #[test]
        fn points_are_armed_by_name_signal_and_passing() {
            for (text, expected) in [
                ("after-scan:kill", Some(("after-scan", "-KILL", 1))),
                ("after-scan:stop:3", Some(("after-scan", "-STOP", 3))),
                ("after-scan", None),
                ("after-scan:hug", None),
                ("after-scan:kill:x", None),
            ] {
                let armed = parse(text);
                let found = armed.as_ref().map(|armed| (armed.point.as_str(), armed.signal, armed.nth));
                assert_eq!(found, expected, "{text}");
            }
        }
    }
}
