//! Snapshot files of shards: written aside and renamed, read back only if whole. Not here: whether the log still
//! agrees with one (`tails`), what the body means (the service). Invariant: a file is disposable; one that is
//! damaged, of another version, service or shard is as good as none, and nothing ever waits for one.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use orloj_domain::shard::{Shard, ShardCount};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::tails::Tail;

/// The first bytes of a snapshot; the digit changes with the layout of the file.
const MAGIC: &[u8; 8] = b"ORLOJSN1";
const DIGEST_BYTES: usize = 32;
const LENGTH_BYTES: usize = 4;

/// What a snapshot says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Version of the product that wrote it.
    pub(super) version: String,
    pub(super) service: String,
    pub(super) shard: i32,
    pub(super) shards: i32,
    /// Up to where it covers each topic that a restore reads.
    pub(super) tails: BTreeMap<String, Tail>,
    /// Topic → first offset not covered, as in the positions record.
    pub(super) positions: BTreeMap<String, i64>,
}

/// The folder of one service.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
    service: &'static str,
    shards: ShardCount,
}

impl Folder {
    pub(super) fn new(path: PathBuf, service: &'static str, shards: ShardCount) -> Self {
        Self { path, service, shards }
    }

    /// The head of a snapshot taken now.
    pub(super) fn head(&self, shard: Shard, tails: BTreeMap<String, Tail>, positions: BTreeMap<String, i64>) -> Head {
        let (version, service) = (env!("CARGO_PKG_VERSION").to_owned(), self.service.to_owned());
        Head { version, service, shard: shard.0, shards: self.shards.get(), tails, positions }
    }

    /// Replaces the snapshot of a shard. Whoever is interrupted leaves the older one.
    pub(super) fn write(&self, head: &Head, body: &[u8]) -> io::Result<()> {
        // Definitions hold what people put into them: nobody else's to read.
        DirBuilder::new().mode(0o700).recursive(true).create(&self.path)?;
        let head_bytes = serde_json::to_vec(head)?;
        let length = u32::try_from(head_bytes.len()).map_err(io::Error::other)?;
        let path = self.path_of(Shard(head.shard));
        // Two processes that share a folder by mistake may write into one file; then its checksum is wrong.
        let aside = path.with_extension("tmp");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        let mut digest = Sha256::new();
        for part in [MAGIC.as_slice(), &length.to_le_bytes(), &head_bytes, body] {
            digest.update(part);
            file.write_all(part)?;
        }
        file.write_all(&digest.finalize())?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        File::open(&self.path)?.sync_all()
    }

    /// The snapshot of a shard; nothing if there is none, and why if there is one of no use.
    pub(super) fn read(&self, shard: Shard) -> Result<Option<(Head, Vec<u8>)>, String> {
        let mut bytes = match fs::read(self.path_of(shard)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let head_start = MAGIC.len() + LENGTH_BYTES;
        if bytes.len() < head_start + DIGEST_BYTES || !bytes.starts_with(MAGIC) {
            return Err("it is no snapshot of this layout".to_owned());
        }
        let body_end = bytes.len() - DIGEST_BYTES;
        if Sha256::digest(&bytes[..body_end])[..] != bytes[body_end..] {
            return Err("its checksum is wrong".to_owned());
        }
        let length: [u8; LENGTH_BYTES] = bytes[MAGIC.len()..head_start].try_into().unwrap_or_default();
        let head_end = head_start + usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX - head_start);
        let head_bytes = bytes.get(head_start..head_end.min(body_end)).unwrap_or_default();
        let head: Head = serde_json::from_slice(head_bytes).map_err(|error| error.to_string())?;
        let wanted = self.head(shard, head.tails.clone(), head.positions.clone());
        if head != wanted {
            return Err(format!("it is of {} {}, shard {} of {}", head.service, head.version, head.shard, head.shards));
        }
        bytes.truncate(body_end);
        bytes.drain(..head_end);
        Ok(Some((head, bytes)))
    }

    fn path_of(&self, shard: Shard) -> PathBuf {
        Path::new(&self.path).join(format!("{}-{shard}.snapshot", self.service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard(1);

    fn folder(path: &Path) -> Folder {
        Folder::new(path.to_owned(), "trigger", ShardCount::new(4).expect("a valid count"))
    }

    fn head(folder: &Folder) -> Head {
        let tail = Tail { proof: 7, digest: 9, covered: 8 };
        folder.head(SHARD, BTreeMap::from([("state".to_owned(), tail)]), BTreeMap::from([("input".to_owned(), 3)]))
    }

    #[test]
    fn what_was_written_is_read_back() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let folder = folder(directory.path());
        assert_eq!(folder.read(SHARD), Ok(None));
        for body in [b"older".as_slice(), b"body", b""] {
            folder.write(&head(&folder), body).expect("a writable folder");
            assert_eq!(folder.read(SHARD), Ok(Some((head(&folder), body.to_vec()))));
        }
    }

    #[test]
    fn a_file_that_was_damaged_in_any_place_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let folder = folder(directory.path());
        folder.write(&head(&folder), b"body").expect("a writable folder");
        let path = folder.path_of(SHARD);
        let good = fs::read(&path).expect("it was written");
        for place in 0..good.len() {
            let mut bytes = good.clone();
            bytes[place] ^= 1;
            fs::write(&path, &bytes).expect("a writable folder");
            assert!(folder.read(SHARD).is_err(), "byte {place} was changed");
            fs::write(&path, &good[..place]).expect("a writable folder");
            assert!(folder.read(SHARD).is_err(), "only {place} bytes are left");
        }
    }

    #[test]
    fn a_file_of_another_version_service_or_shard_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let folder = folder(directory.path());
        let good = head(&folder);
        let changed: [(&str, Head); 3] = [
            ("version", Head { version: "999.0.0".to_owned(), ..good.clone() }),
            ("service", Head { service: "dispatcher".to_owned(), ..good.clone() }),
            ("shards", Head { shards: 8, ..good.clone() }),
        ];
        for (what, head) in changed {
            folder.write(&head, b"body").expect("a writable folder");
            assert!(folder.read(SHARD).is_err(), "another {what}");
        }
        folder.write(&good, b"body").expect("a writable folder");
        fs::copy(folder.path_of(SHARD), folder.path_of(Shard(2))).expect("a writable folder");
        assert!(folder.read(Shard(2)).is_err(), "another shard");
    }
}
