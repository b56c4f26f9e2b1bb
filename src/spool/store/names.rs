//! What the instance was called, by sequence, in a table of its own: a version that does not know it passes it over.

use super::{FAILED, RECEIPTS, RECORDS};
use crate::{
    produce::{InstanceId, Sequence},
    spool::Instances,
};
use redb::{ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};
use std::ops::Range;

/// A name, by the first sequence that has it. The first one is under 0.
pub(super) const NAMES: TableDefinition<u64, &str> = TableDefinition::new("instances");
/// So many names are remembered, at most: 150 KB.
pub(super) const MAX: u64 = 1000;

/// All names so far; where there are none, all records are those of `instance`.
pub(super) fn read(transaction: &WriteTransaction, instance: &InstanceId) -> Result<Instances, redb::Error> {
    let mut instances: Option<Instances> = None;
    for row in transaction.open_table(NAMES)?.iter()? {
        let (first, name) = row?;
        let corrupt = |error| redb::Error::Corrupted(format!("{error}: {:?}", name.value()));
        let name = InstanceId::parse(name.value()).map_err(corrupt)?;
        match &mut instances {
            Some(instances) => instances.rename(Sequence(first.value()), name),
            None => instances = Some(Instances::only(name)),
        }
    }
    Ok(instances.unwrap_or_else(|| Instances::only(instance.clone())))
}

/// Notes that the sequences from `first` on, of which none is used yet, are those of `instance`. Says so where it had
/// another name before. Where no more names can be remembered, the one before stays, which keeps every receipt true.
pub(super) fn add(
    transaction: &WriteTransaction,
    instance: &InstanceId,
    first: u64,
) -> Result<(), redb::Error> {
    let mut names = transaction.open_table(NAMES)?;
    let Some(earlier) = names.last()?.map(|(_, name)| name.value().to_owned()) else {
        // a version that did not know this table may have stored some
        names.insert(0, instance.as_str())?;
        return Ok(());
    };
    if earlier == instance.as_str() {
        return Ok(());
    }
    if names.len()? >= MAX && !forget_one(transaction, &mut names)? {
        tracing::warn!(
            earlier, now = %instance, names = MAX,
            "INSTANCE_ID is not the one of the last start with this spool, and no more names can be remembered: there \
             are stored records or receipts of each. New records get the earlier name. Set INSTANCE_ID to one name for \
             good, and see to failed records: kafka-inlet spool list"
        );
        return Ok(());
    }
    names.insert(first, instance.as_str())?;
    tracing::warn!(
        earlier, now = %instance,
        "INSTANCE_ID is not the one of the last start with this spool. What is stored keeps its receipts, which begin \
         with the earlier name and are answered here; new records get the new one. Set INSTANCE_ID where it shall stay"
    );
    Ok(())
}

/// Forgets the oldest name of which nothing is left: nothing can come again with its sequences. False where there is
/// none.
fn forget_one(
    transaction: &WriteTransaction,
    names: &mut Table<'_, u64, &'static str>,
) -> Result<bool, redb::Error> {
    let firsts: Result<Vec<u64>, _> = names.iter()?.map(|row| row.map(|(first, _)| first.value())).collect();
    let firsts = firsts?;
    let ends = firsts.iter().skip(1).copied().chain([u64::MAX]);
    for (first, end) in firsts.iter().zip(ends) {
        if has_nothing(transaction, *first..end)? {
            names.remove(first)?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_nothing(transaction: &WriteTransaction, sequences: Range<u64>) -> Result<bool, redb::Error> {
    for table in [RECORDS, RECEIPTS, FAILED] {
        if transaction.open_table(table)?.range(sequences.clone())?.next().transpose()?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}
