//! Erasing what is known of a person, a decision, or all of a tenant's decisions.

use serde_json::json;

use crate::entry::ERASED;
use crate::error::{AuditError, Result};
use crate::places::LogPlaces;
use crate::query::Query;
use crate::removal::{Extent, Removal, Removed};

/// Whose data is erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erasure {
    /// Of one end user of a tenant, named as the client names them.
    Subject {
        /// The tenant.
        tenant: String,
        /// The end user.
        subject: String,
    },
    /// Of one decision.
    Decision {
        /// The tenant.
        tenant: String,
        /// Id of the decision.
        id: String,
    },
    /// Of all decisions of a tenant.
    Tenant {
        /// The tenant.
        tenant: String,
    },
}

impl LogPlaces {
    /// Removes the erasable parts of the decisions that `erasure` names, in every place of the log and its files that
    /// were rotated but not compressed, and their pictures. An entry says which decisions these were. The chains still
    /// verify. Blocks; never call it on a thread of an asynchronous runtime.
    ///
    /// # Errors
    /// If end users are not in the log, another process is removing, or a place cannot be read or written. What was
    /// removed by then stays removed; calling it again goes on.
    pub fn erase(&self, erasure: &Erasure) -> Result<Removed> {
        let (query, scope) = match erasure {
            Erasure::Subject { tenant, subject } => {
                let subjects = self.subjects(tenant, subject)?;
                let scope = json!({ "subjects": subjects });
                (Query { subjects, ..Query::for_tenant(tenant) }, scope)
            }
            Erasure::Decision { tenant, id } => {
                (Query { decision: Some(id.clone()), ..Query::for_tenant(tenant) }, json!({ "decision": id }))
            }
            Erasure::Tenant { tenant } => (Query::for_tenant(tenant), json!({})),
        };
        let (Erasure::Subject { tenant, .. } | Erasure::Decision { tenant, .. } | Erasure::Tenant { tenant }) =
            erasure;
        if tenant.is_empty() {
            return Err(AuditError::Refused("an erasure names a tenant".to_owned()));
        }
        let note = json!({ "scope": scope });
        self.remove(&Removal { query: &query, extent: Extent::Parts, path: ERASED, note, tenant })
    }
}
