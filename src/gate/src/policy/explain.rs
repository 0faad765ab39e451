//! Where each value of a policy comes from.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{Table, Value};

use super::entries::{PieceKind, Place, chain, quoted};
use super::policies::merge;
use super::{Policies, RawPolicy};
use crate::GateError;

/// One value of a tenant's policy, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Dotted path of the key below the tenant.
    pub key: String,
    /// The value as TOML.
    pub value: String,
    /// `default`, or the table and the file or row that says so: `template.base of policy.toml`.
    pub source: String,
}

impl Policies {
    /// Every value of the policy of `tenant` for a generation model of the name `model`, with the table that it comes
    /// from, in the order of the keys.
    ///
    /// # Errors
    /// [`GateError::UnknownTenant`] if there is no such tenant.
    pub fn explain(&self, tenant: &str, model: Option<&str>) -> Result<Vec<Explained>, GateError> {
        self.require(tenant)?;
        let place = Place { kind: PieceKind::Tenant, name: tenant.into() };
        let Some(entry) = self.entries().get(&place) else {
            return Err(GateError::unknown_tenant(tenant, self.tenants()));
        };
        let chain = chain(self.entries(), entry)?;
        let models = merge(&chain)?.models;
        let pattern = model.and_then(|model| models.iter().find(|(glob, _, _)| glob.matches(model)));
        let mut values = BTreeMap::new();
        let defaults = Table::try_from(RawPolicy::default()).unwrap_or_default();
        note(&mut values, &defaults, "", "default");
        let source = |place: &dyn std::fmt::Display, origin: &str| format!("{place} of {origin}");
        for entry in chain.iter().rev() {
            note(&mut values, &entry.table, "", &source(&entry.place, &entry.origin));
        }
        let Some((_, pattern, _)) = pattern else { return Ok(list(values)) };
        for entry in chain.iter().rev() {
            let models = entry.table.get("model").and_then(Value::as_table);
            let Some(Value::Table(keys)) = models.and_then(|models| models.get(pattern)) else { continue };
            let place = format!("{}.model.{}", entry.place, quoted(pattern));
            note(&mut values, keys, "", &source(&place, &entry.origin));
        }
        Ok(list(values))
    }
}

/// Writes down every value of `table`; what was there before of the same key is replaced.
fn note(values: &mut BTreeMap<String, (String, String)>, table: &Table, path: &str, source: &str) {
    for (key, value) in table {
        if path.is_empty() && matches!(key.as_str(), "extends" | "model") {
            continue;
        }
        let here = if path.is_empty() { quoted(key) } else { format!("{path}.{}", quoted(key)) };
        match value {
            Value::Table(inner) => note(values, inner, &here, source),
            value => {
                values.insert(here, (value.to_string(), source.to_owned()));
            }
        }
    }
}

fn list(values: BTreeMap<String, (String, String)>) -> Vec<Explained> {
    values.into_iter().map(|(key, (value, source))| Explained { key, value, source }).collect()
}
