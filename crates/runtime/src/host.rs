//! The name of this machine, as the kernel has it. Invariant: never empty.

/// Host name; `localhost` where the kernel has none.
#[must_use]
pub fn name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// Host name and process id, for people.
#[must_use]
pub fn process() -> String {
    format!("{}:{}", name(), std::process::id())
}
