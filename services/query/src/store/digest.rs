//! A hash over all rows, to compare a projection with one that was rebuilt. Not here: where it is compared.
//! Invariant: equal rows give an equal digest, in whatever order they were written.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Result};
use sha2::{Digest, Sha256};

use super::schema::ORDERED;

/// The digest of the file, as hexadecimal text.
pub(crate) fn digest(file: &Path) -> Result<String> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // One transaction, so that a writer beside us does not matter.
    connection.execute_batch("BEGIN")?;
    let mut digest = Sha256::new();
    for (table, order) in ORDERED {
        digest.update(table.as_bytes());
        let mut statement = connection.prepare(&format!("SELECT * FROM {table} ORDER BY {order}"))?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                update(&mut digest, row.get_ref(column)?);
            }
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn update(digest: &mut Sha256, value: ValueRef<'_>) {
    let (tag, bytes): (u8, &[u8]) = match value {
        ValueRef::Null => (0, &[]),
        ValueRef::Integer(number) => return digest.update([&[1], &number.to_be_bytes()[..]].concat()),
        ValueRef::Real(number) => return digest.update([&[2], &number.to_be_bytes()[..]].concat()),
        ValueRef::Text(text) => (3, text),
        ValueRef::Blob(blob) => (4, blob),
    };
    digest.update([tag]);
    digest.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
    digest.update(bytes);
}
