//! Names of imported jobs: words of the command for people, and a hash of what the line says for uniqueness.
//! Invariant: a name depends on schedule, user and command alone, so that importing again edits the same job.

use orloj_domain::shard::murmur2;

/// Longest part made of words; with `-` and eight digits it stays below the 63 of a DNS-1123 label.
const WORDS_BYTES_MAX: usize = 48;

pub(super) fn of(schedule: &str, user: Option<&str>, command: &str) -> String {
    hashed(&[schedule, user.unwrap_or(""), command], command)
}

/// The name of a line whose twin above it follows the clock of another time zone.
pub(super) fn of_zone(schedule: &str, user: Option<&str>, command: &str, zone: &str) -> String {
    hashed(&[schedule, user.unwrap_or(""), command, zone], command)
}

fn hashed(parts: &[&str], command: &str) -> String {
    // Separated by what no line can hold, so that moving a word between the parts changes the hash.
    let identity = parts.join("\n");
    format!("{}-{:08x}", words(command), murmur2(identity.as_bytes()))
}

fn words(command: &str) -> String {
    let mut slug = String::new();
    // Where output goes says little about a command, and much of it is `/dev/null 2>&1`.
    for word in command.split_whitespace().take_while(|word| !word.contains('>')) {
        let last = word.trim_end_matches(['/', ';']).rsplit('/').next().unwrap_or(word);
        let is_plain = |character: char| character.is_ascii_alphanumeric();
        for part in last.split(|character| !is_plain(character)).filter(|part| !part.is_empty()) {
            if slug.len() + 1 + part.len() > WORDS_BYTES_MAX {
                return or_job(slug);
            }
            if !slug.is_empty() {
                slug.push('-');
            }
            slug.push_str(&part.to_ascii_lowercase());
        }
    }
    or_job(slug)
}

fn or_job(slug: String) -> String {
    if slug.is_empty() { "job".to_owned() } else { slug }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_from_the_command() {
        for (command, expected) in [
            ("/usr/local/bin/backup.sh --full /srv/data", "backup-sh-full-data"),
            ("cd / && run-parts --report /etc/cron.hourly", "cd-run-parts-report-cron-hourly"),
            ("PGHOST=db pg_dump app | gzip > /srv/app.gz", "pghost-db-pg-dump-app-gzip"),
            ("php artisan schedule:run >> /dev/null 2>&1", "php-artisan-schedule-run"),
            ("[ -x /bin/x ]", "x-x"),
            ("…", "job"),
        ] {
            assert_eq!(words(command), expected);
        }
        assert!(words(&"word ".repeat(40)).len() <= WORDS_BYTES_MAX);
        assert_eq!(words(&"x".repeat(100)), "job");
    }

    #[test]
    fn each_part_counts() {
        let name = of("0 1 * * *", None, "backup");
        assert_eq!(name, of("0 1 * * *", None, "backup"));
        assert_ne!(name, of("0 2 * * *", None, "backup"));
        assert_ne!(name, of("0 1 * * *", Some("root"), "backup"));
        assert!(orloj_domain::id::check_label("job name", &name).is_ok());
    }
}
