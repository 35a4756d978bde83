//! Secrets that jobs name and the runner knows. Not here: who may name which. Invariant: a value is read when it is used, and
//! neither it nor a part of it stands in an error or in `Debug`.

use std::path::PathBuf;

/// Variables of the runner that hold secrets: this and the name, in capitals, `-` and `.` as `_`.
const VARIABLE_PREFIX: &str = "ORLOJ_SECRET_";

/// Where secrets are: files of a directory, by name, then variables of the runner.
#[derive(Debug, Clone)]
pub(crate) struct Secrets {
    pub(crate) directory: Option<PathBuf>,
}

impl Secrets {
    /// The value of a secret, without the line's end that an editor leaves behind it.
    ///
    /// # Errors
    /// A sentence that says where it was looked for.
    pub(crate) fn get(&self, name: &str) -> Result<String, String> {
        // Names are checked at admission; a definition of another version may not have been.
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(format!("`{}` is no name of a secret", name.escape_debug()));
        }
        if let Some(directory) = &self.directory {
            match std::fs::read_to_string(directory.join(name)) {
                Ok(text) => {
                    return Ok(text
                        .strip_suffix('\n')
                        .map_or(text.clone(), |text| text.trim_end_matches('\r').to_owned()));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("secret `{name}` can't be read ({})", error.kind())),
            }
        }
        let variable = format!("{VARIABLE_PREFIX}{}", name.to_ascii_uppercase().replace(['-', '.'], "_"));
        let place = match &self.directory {
            Some(_) => "a file of that name in `runner.secretsDir`, or the variable",
            None => "the variable",
        };
        std::env::var(&variable).map_err(|_| format!("this runner has no secret `{name}`; give it {place} {variable}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_files_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("token"), "hush\n").expect("a file");
        let secrets = Secrets { directory: Some(folder.path().to_path_buf()) };
        assert_eq!(secrets.get("token").as_deref(), Ok("hush"));
        for (name, said) in
            [("../token", "no name"), (".token", "no name"), ("", "no name"), ("db-pass", "ORLOJ_SECRET_DB_PASS")]
        {
            let error = secrets.get(name).expect_err("refused");
            assert!(error.contains(said), "{error}");
        }
    }
}
