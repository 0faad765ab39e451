//! Changing rows of the log: what was erased is gone from its row and its columns.

use cluegate_store::args;

use super::{LogTables, head, insert, move_head, signed};
use crate::chain::Chain;
use crate::entry::Draft;
use crate::error::{AuditError, Result};
use crate::head::Head;

/// How often a chain that several may write is tried.
const TRIES: usize = 20;

/// What is left of an entry.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) instance: String,
    pub(crate) seq: u64,
    pub(crate) entry: String,
}

impl LogTables {
    /// Changes rows and appends to the chain of `instance` the entry that says so, all of it or nothing. With `whole`,
    /// nothing is left of the entries that they could be found by.
    pub(crate) async fn change(
        &self,
        instance: &str,
        changes: &[Change],
        whole: bool,
        note: Draft,
    ) -> Result<()> {
        // Others may remove at the same time.
        for _ in 0..TRIES {
            if self.try_change(instance, changes, whole, note.clone()).await? {
                return Ok(());
            }
        }
        Err(AuditError::Contended { instance: instance.to_owned() })
    }

    async fn try_change(&self, instance: &str, changes: &[Change], whole: bool, note: Draft) -> Result<bool> {
        let mut write = self.database.write().await?;
        let before = head(&mut write, instance).await?.map(|head| head.position);
        let placed = Chain::after(instance, before.as_ref())?.place(note)?;
        let after = Head::new(placed.link.position(), self.keys.as_ref());
        if !move_head(&mut write, before.as_ref(), &after).await? {
            write.finish().await?;
            return Ok(false);
        }
        for Change { instance, seq, entry } in changes {
            let seq = signed(*seq)?;
            let sql = "UPDATE log_entry SET entry = $1, subject = NULL WHERE instance = $2 AND seq = $3";
            write.execute(sql, args![entry, instance, seq]).await?;
            if whole {
                let sql = "UPDATE log_entry SET decision_id = '', path = '', tenant = NULL, outcome = NULL, \
                           reason = NULL, request = NULL, model = NULL WHERE instance = $1 AND seq = $2";
                write.execute(sql, args![instance, seq]).await?;
                let sql = "DELETE FROM log_rule WHERE instance = $1 AND seq = $2";
                write.execute(sql, args![instance, seq]).await?;
            }
        }
        insert(&mut write, std::slice::from_ref(&placed)).await?;
        write.commit().await?;
        Ok(true)
    }
}
