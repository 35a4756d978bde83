//! A machine as bytes for a snapshot, and back: each definition once, then the numbers of each job. Not here: where
//! the bytes are kept and whether they are still true (`runtime::driver`). Invariant: what is read back is the
//! machine that was written, the jobs included whose cursor only decisions explain; anything else is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use orloj_domain::id::JobId;
use orloj_domain::job::JobDefinition;
use orloj_domain::trigger_state::TriggerState;
use orloj_runtime::codec;

use super::TriggerMachine;
use super::entry::Entry;
use super::shared::SharedTerms;

/// Changes with every change of what is written here.
const LAYOUT: u32 = 1;
/// The job has no definition.
const NO_TERMS: u32 = u32::MAX;
/// What a job has beside its numbers.
const IS_UNSAVED: u8 = 1;
const IS_RARE: u8 = 2;

impl TriggerMachine {
    /// All jobs as bytes. Only a build of the same version and layout reads them back.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut terms: BTreeMap<*const (), u32> = BTreeMap::new();
        let (mut definitions, mut jobs) = (Vec::new(), Vec::new());
        for (index, entry) in self.jobs.iter() {
            let job = &entry.job;
            let place = entry.shared_terms().map_or(NO_TERMS, |shared| {
                let next = u32::try_from(terms.len()).unwrap_or(NO_TERMS);
                *terms.entry(Arc::as_ptr(shared).cast()).or_insert_with(|| {
                    put_bytes(&mut definitions, &codec::encode(&shared.value.definition_of(job)));
                    next
                })
            });
            let is_unsaved = self.unsaved.contains(&index) || self.saving.contains(&index);
            let flags = if is_unsaved { IS_UNSAVED } else { 0 } | if entry.is_rare() { IS_RARE } else { 0 };
            put_bytes(&mut jobs, job.as_str().as_bytes());
            jobs.extend_from_slice(&place.to_le_bytes());
            jobs.push(flags);
            for number in entry.numbers() {
                jobs.extend_from_slice(&number.to_le_bytes());
            }
            if entry.is_rare() {
                put_bytes(&mut jobs, &codec::encode(&TriggerState { definition: None, ..entry.state() }));
            }
        }
        let mut bytes = Vec::with_capacity(16 + definitions.len() + jobs.len());
        for count in [LAYOUT as usize, terms.len(), self.jobs.len()] {
            bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        }
        bytes.extend(definitions);
        bytes.extend(jobs);
        bytes
    }

    /// Takes all jobs of a snapshot; `None` if it can't be read, and then the machine is good for nothing.
    pub fn restore_snapshot(&mut self, bytes: &[u8]) -> Option<()> {
        let mut left = bytes;
        if number(&mut left)? != LAYOUT {
            return None;
        }
        let (terms, jobs) = (number(&mut left)?, number(&mut left)?);
        let mut known = Vec::new();
        for _ in 0..terms {
            let definition = Arc::new(codec::decode::<JobDefinition>(take_bytes(&mut left)?).ok()?);
            let (shared, rules) = self.shares.take(&definition, false);
            // Each job takes its own.
            self.shares.give_up(None, rules);
            known.push(shared);
        }
        for _ in 0..jobs {
            self.restore_job(&known, &mut left)?;
        }
        for shared in known {
            self.shares.give_up(Some(shared), None);
        }
        left.is_empty().then_some(())
    }

    fn restore_job(&mut self, known: &[SharedTerms], left: &mut &[u8]) -> Option<()> {
        let job: JobId = std::str::from_utf8(take_bytes(left)?).ok()?.parse().ok()?;
        let (terms, rules) = match number(left)? {
            NO_TERMS => (None, None),
            place => {
                let shared = known.get(usize::try_from(place).ok()?)?;
                (Some(SharedTerms::clone(shared)), self.shares.rules_of(&shared.value, &job))
            }
        };
        let flags = take(left, 1)?[0];
        let mut numbers = [0; Entry::NUMBERS];
        for number in &mut numbers {
            *number = i64::from_le_bytes(take(left, 8)?.try_into().ok()?);
        }
        let rare =
            if flags & IS_RARE == 0 { None } else { Some(codec::decode::<TriggerState>(take_bytes(left)?).ok()?) };
        let entry = Entry::of_snapshot(job, (terms, rules), numbers, rare.as_ref());
        let index = self.insert(entry)?;
        if flags & IS_UNSAVED != 0 {
            self.unsaved.insert(index);
        }
        Some(())
    }

    /// Takes a job that is not known yet.
    fn insert(&mut self, entry: Entry) -> Option<u32> {
        if self.jobs.index_of(&entry.job).is_some() {
            return None;
        }
        let zones = entry.zones();
        let index = self.jobs.push(entry)?;
        self.lost_zones.add(zones);
        self.arm(index);
        Some(index)
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take<'a>(left: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = left.split_at_checked(count)?;
    *left = rest;
    Some(taken)
}

fn number(left: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(left, 4)?.try_into().ok()?))
}

fn take_bytes<'a>(left: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(left)?).ok()?;
    take(left, length)
}
