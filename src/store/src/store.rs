//! Reading the store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::edit::{Author, Edit};
use crate::model::{
    Change, Constitution, Key, Kind, MAX_NAME_BYTES, PolicyVersion, Revision, Template, Tenant, TenantState,
    check_name, check_text,
};
use crate::{Database, Row, StoreError, Transaction, args};

/// Most objects that [`Store::changes_since`] reads one by one; more are read all at once.
const MAX_SINGLE: usize = 500;

const TEMPLATE: &str = "SELECT name, policy, version, changed_by, changed_ms FROM template";
const TENANT: &str = "SELECT name, policy, state, version, changed_by, changed_ms FROM tenant";
const CONSTITUTION: &str = "SELECT c.name, c.current, r.body, c.version, c.changed_by, c.changed_ms \
    FROM constitution c JOIN constitution_revision r ON r.name = c.name AND r.revision = c.current";
const CURRENT: &str = "SELECT name, current, version, changed_by, changed_ms FROM constitution";
const REVISION: &str = "SELECT name, revision, body, added_by, added_ms FROM constitution_revision";
const VERSION: &str = "SELECT generation, version, policy, changed_by, changed_ms FROM policy_version";
const KEY: &str =
    "SELECT tenant, id, sha256, note, created_ms, not_before_ms, expires_ms, revoked_ms FROM api_key";
const CHANGE: &str =
    "SELECT generation, kind, tenant, name, action, changed_by, changed_ms FROM store_change";

/// A text of SQL from constant parts.
macro_rules! sql {
    ($($part:expr),+) => { crate::AssertSqlSafe([$($part),+].concat()) };
}

/// Tenants, templates, constitutions, keys and usage in a database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
}

/// What changed between two states of the store, or all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The store's number after these changes.
    pub generation: i64,
    /// This is all there is, and what is not in it is not in the store.
    pub everything: bool,
    /// Changed templates by name; none for one that is gone.
    pub templates: BTreeMap<String, Option<Template>>,
    /// Changed tenants by name; none for one that is gone.
    pub tenants: BTreeMap<String, Option<Tenant>>,
    /// Constitutions of which another revision is current, by name; none for one that is gone.
    pub constitutions: BTreeMap<String, Option<Constitution>>,
    /// Changed keys by tenant and id; none for one that is gone.
    pub keys: BTreeMap<(String, String), Option<Key>>,
}

impl Changes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        !self.everything
            && self.templates.is_empty()
            && self.tenants.is_empty()
            && self.constitutions.is_empty()
            && self.keys.is_empty()
    }
}

/// Which revision a constitution's name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Current {
    /// The constitution's name.
    pub name: String,
    /// The current revision.
    pub revision: String,
    /// Counts the changes of the current revision, from 1.
    pub version: i64,
    /// Who changed it last.
    pub changed_by: String,
    /// When, in milliseconds since 1970 (UTC).
    pub changed_ms: i64,
}

/// Everything that an operator wrote into a store, with all revisions; without usage. For copies into another database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// All templates, by name.
    pub templates: Vec<Template>,
    /// All tenants, by name.
    pub tenants: Vec<Tenant>,
    /// All revisions of all constitutions, by name and age.
    pub revisions: Vec<Revision>,
    /// The current revision of each constitution, by name.
    pub current: Vec<Current>,
    /// All keys, by tenant and id.
    pub keys: Vec<Key>,
}

impl Contents {
    /// Servers sort texts by their language; a copy is to be the same everywhere.
    fn sort(&mut self) {
        self.templates.sort_by(|one, other| one.name.cmp(&other.name));
        self.tenants.sort_by(|one, other| one.name.cmp(&other.name));
        self.revisions.sort_by(|one, other| {
            (&one.name, one.added_ms, &one.revision).cmp(&(&other.name, other.added_ms, &other.revision))
        });
        self.current.sort_by(|one, other| one.name.cmp(&other.name));
        self.keys.sort_by(|one, other| (&one.tenant, &one.id).cmp(&(&other.tenant, &other.id)));
    }
}

impl Store {
    /// The store in `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Where it lies.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Begins an edit by `author`. It waits until no other edit is under way.
    ///
    /// # Errors
    /// If the author has no name, or as the database says.
    pub async fn edit(&self, author: Author<'_>) -> Result<Edit, StoreError> {
        Edit::begin(&self.database, author).await
    }

    /// The number that every change raises.
    ///
    /// # Errors
    /// As the database says.
    pub async fn generation(&self) -> Result<i64, StoreError> {
        let mut read = self.database.read().await?;
        let generation = generation(&mut read).await?;
        read.finish().await?;
        Ok(generation)
    }

    /// All that a gateway needs: templates, tenants, current constitutions and keys.
    ///
    /// # Errors
    /// As the database says.
    pub async fn load(&self) -> Result<Changes, StoreError> {
        let mut read = self.database.read().await?;
        let all = everything(&mut read).await?;
        read.finish().await?;
        Ok(all)
    }

    /// What changed after the state with the number `generation`, in one state of the database. If that is no longer known,
    /// or the number is larger than the store's (somebody restored a backup), all of it.
    ///
    /// # Errors
    /// As the database says.
    pub async fn changes_since(&self, generation: i64) -> Result<Changes, StoreError> {
        let mut read = self.database.read().await?;
        let changes = changes_since(&mut read, generation).await?;
        read.finish().await?;
        Ok(changes)
    }

    /// The last changes, newest first, at most `limit`: who did what, and when.
    ///
    /// # Errors
    /// As the database says.
    pub async fn history(&self, limit: u32) -> Result<Vec<Change>, StoreError> {
        let order = " ORDER BY generation DESC, kind, tenant, name LIMIT $1";
        self.list(sql!(CHANGE, order), args![i64::from(limit)], change).await
    }

    /// Templates in order of their names, beginning after `after`, at most `limit`.
    ///
    /// # Errors
    /// As the database says.
    pub async fn templates(&self, after: &str, limit: u32) -> Result<Vec<Template>, StoreError> {
        check_text("place in the list", after, MAX_NAME_BYTES)?;
        let page = " WHERE name > $1 ORDER BY name LIMIT $2";
        self.list(sql!(TEMPLATE, page), args![after, i64::from(limit)], template).await
    }

    /// The template `name`.
    ///
    /// # Errors
    /// As the database says.
    pub async fn template(&self, name: &str) -> Result<Option<Template>, StoreError> {
        self.one(sql!(TEMPLATE, " WHERE name = $1"), &[("template", name)], template).await
    }

    /// Tenants in order of their names, beginning after `after`, at most `limit`.
    ///
    /// # Errors
    /// As the database says.
    pub async fn tenants(&self, after: &str, limit: u32) -> Result<Vec<Tenant>, StoreError> {
        check_text("place in the list", after, MAX_NAME_BYTES)?;
        let page = " WHERE name > $1 ORDER BY name LIMIT $2";
        self.list(sql!(TENANT, page), args![after, i64::from(limit)], tenant).await
    }

    /// The tenant `name`.
    ///
    /// # Errors
    /// As the database says.
    pub async fn tenant(&self, name: &str) -> Result<Option<Tenant>, StoreError> {
        self.one(sql!(TENANT, " WHERE name = $1"), &[("tenant", name)], tenant).await
    }

    /// What the policy of a tenant or a template said, newest first, beginning before the store's number `before`, at most
    /// `limit`. One that was removed has its versions still.
    ///
    /// # Errors
    /// As the database says.
    pub async fn policy_versions(
        &self,
        kind: Kind,
        name: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<PolicyVersion>, StoreError> {
        check_text("name", name, MAX_NAME_BYTES)?;
        let page = " WHERE kind = $1 AND name = $2 AND generation < $3 ORDER BY generation DESC LIMIT $4";
        let arguments = args![kind.name(), name, before.unwrap_or(i64::MAX), i64::from(limit)];
        self.list(sql!(VERSION, page), arguments, policy_version).await
    }

    /// Constitutions with their current text in order of their names, beginning after `after`, at most `limit`.
    ///
    /// # Errors
    /// As the database says.
    pub async fn constitutions(&self, after: &str, limit: u32) -> Result<Vec<Constitution>, StoreError> {
        check_text("place in the list", after, MAX_NAME_BYTES)?;
        let page = " WHERE c.name > $1 ORDER BY c.name LIMIT $2";
        self.list(sql!(CONSTITUTION, page), args![after, i64::from(limit)], constitution).await
    }

    /// The constitution `name` with its current text.
    ///
    /// # Errors
    /// As the database says.
    pub async fn constitution(&self, name: &str) -> Result<Option<Constitution>, StoreError> {
        self.one(sql!(CONSTITUTION, " WHERE c.name = $1"), &[("constitution", name)], constitution).await
    }

    /// One revision of a constitution, current or not.
    ///
    /// # Errors
    /// As the database says.
    pub async fn revision(&self, name: &str, revision: &str) -> Result<Option<Revision>, StoreError> {
        let which = " WHERE name = $1 AND revision = $2";
        self.one(sql!(REVISION, which), &[("constitution", name), ("revision", revision)], revision_row).await
    }

    /// All revisions of a constitution, newest first, at most `limit`.
    ///
    /// # Errors
    /// As the database says.
    pub async fn revisions(&self, name: &str, limit: u32) -> Result<Vec<Revision>, StoreError> {
        let which = " WHERE name = $1 ORDER BY added_ms DESC, revision LIMIT $2";
        check_name("constitution", name)?;
        self.list(sql!(REVISION, which), args![name, i64::from(limit)], revision_row).await
    }

    /// The keys of `tenant` in order of their ids, beginning after `after`, at most `limit`.
    ///
    /// # Errors
    /// As the database says.
    pub async fn keys(&self, tenant: &str, after: &str, limit: u32) -> Result<Vec<Key>, StoreError> {
        check_text("place in the list", after, MAX_NAME_BYTES)?;
        let page = " WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3";
        check_name("tenant", tenant)?;
        self.list(sql!(KEY, page), args![tenant, after, i64::from(limit)], key).await
    }

    /// The key `id` of `tenant`. Another tenant's key of that id is as good as none.
    ///
    /// # Errors
    /// As the database says.
    pub async fn key(&self, tenant: &str, id: &str) -> Result<Option<Key>, StoreError> {
        self.one(sql!(KEY, " WHERE tenant = $1 AND id = $2"), &[("tenant", tenant), ("key", id)], key).await
    }

    /// Everything that an operator wrote.
    ///
    /// # Errors
    /// As the database says.
    pub async fn export(&self) -> Result<Contents, StoreError> {
        let mut read = self.database.read().await?;
        let mut contents = Contents {
            templates: rows(&mut read, TEMPLATE, template).await?,
            tenants: rows(&mut read, TENANT, tenant).await?,
            revisions: rows(&mut read, REVISION, revision_row).await?,
            current: rows(&mut read, CURRENT, current).await?,
            keys: rows(&mut read, KEY, key).await?,
        };
        read.finish().await?;
        contents.sort();
        Ok(contents)
    }

    /// One row by its names. A name that none can have finds none.
    async fn one<T>(
        &self,
        sql: impl sqlx::SqlSafeStr,
        names: &[(&'static str, &str)],
        make: fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        if names.iter().any(|(what, name)| check_name(what, name).is_err()) {
            return Ok(None);
        }
        let arguments: Vec<_> = names.iter().map(|(_, name)| crate::Arg::from(*name)).collect();
        Ok(self.list(sql, &arguments, make).await?.pop())
    }

    async fn list<T>(
        &self,
        sql: impl sqlx::SqlSafeStr,
        arguments: &[crate::Arg<'_>],
        make: fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut read = self.database.read().await?;
        let rows = read.fetch_all(sql, arguments).await?;
        read.finish().await?;
        rows.iter().map(make).collect()
    }
}

pub(crate) async fn generation(transaction: &mut Transaction) -> Result<i64, StoreError> {
    let row = transaction.fetch_one("SELECT value FROM store_generation WHERE id = 1", args![]).await?;
    Ok(row.get("value")?)
}

async fn rows<T>(
    read: &mut Transaction,
    sql: impl sqlx::SqlSafeStr,
    make: fn(&Row) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    read.fetch_all(sql, args![]).await?.iter().map(make).collect()
}

async fn everything(read: &mut Transaction) -> Result<Changes, StoreError> {
    let templates = rows(read, TEMPLATE, template).await?;
    let tenants = rows(read, TENANT, tenant).await?;
    let constitutions = rows(read, CONSTITUTION, constitution).await?;
    let keys = rows(read, KEY, key).await?;
    Ok(Changes {
        generation: generation(read).await?,
        everything: true,
        templates: templates.into_iter().map(|one| (one.name.clone(), Some(one))).collect(),
        tenants: tenants.into_iter().map(|one| (one.name.clone(), Some(one))).collect(),
        constitutions: constitutions.into_iter().map(|one| (one.name.clone(), Some(one))).collect(),
        keys: keys.into_iter().map(|one| ((one.tenant.clone(), one.id.clone()), Some(one))).collect(),
    })
}

async fn changes_since(read: &mut Transaction, since: i64) -> Result<Changes, StoreError> {
    let now = generation(read).await?;
    if since == now {
        return Ok(Changes { generation: now, ..Changes::default() });
    }
    let oldest: Option<i64> =
        read.fetch_one("SELECT MIN(generation) AS oldest FROM store_change", args![]).await?.get("oldest")?;
    let known = since >= 0 && since < now && oldest.is_some_and(|oldest| oldest <= since.saturating_add(1));
    if !known {
        return everything(read).await;
    }
    let changed = read
        .fetch_all(
            "SELECT DISTINCT kind, tenant, name FROM store_change WHERE generation > $1 LIMIT $2",
            args![since, MAX_SINGLE as i64 + 1],
        )
        .await?;
    if changed.len() > MAX_SINGLE {
        return everything(read).await;
    }
    let mut changes = Changes { generation: now, ..Changes::default() };
    for row in changed {
        let (kind, owner, name): (String, String, String) =
            (row.get("kind")?, row.get("tenant")?, row.get("name")?);
        let by_name = args![&name];
        match Kind::parse(&kind)? {
            Kind::Template => {
                let found = read.fetch_optional(sql!(TEMPLATE, " WHERE name = $1"), by_name).await?;
                changes.templates.insert(name, found.as_ref().map(template).transpose()?);
            }
            Kind::Tenant => {
                let found = read.fetch_optional(sql!(TENANT, " WHERE name = $1"), by_name).await?;
                changes.tenants.insert(name, found.as_ref().map(tenant).transpose()?);
            }
            Kind::Constitution => {
                let found = read.fetch_optional(sql!(CONSTITUTION, " WHERE c.name = $1"), by_name).await?;
                changes.constitutions.insert(name, found.as_ref().map(constitution).transpose()?);
            }
            Kind::Key => {
                let which = " WHERE tenant = $1 AND id = $2";
                let found = read.fetch_optional(sql!(KEY, which), args![&owner, &name]).await?;
                changes.keys.insert((owner, name), found.as_ref().map(key).transpose()?);
            }
        }
    }
    Ok(changes)
}

fn template(row: &Row) -> Result<Template, StoreError> {
    Ok(Template {
        name: row.get("name")?,
        policy: row.get("policy")?,
        version: row.get("version")?,
        changed_by: row.get("changed_by")?,
        changed_ms: row.get("changed_ms")?,
    })
}

fn tenant(row: &Row) -> Result<Tenant, StoreError> {
    Ok(Tenant {
        name: row.get("name")?,
        policy: row.get("policy")?,
        state: TenantState::parse(row.get("state")?)?,
        version: row.get("version")?,
        changed_by: row.get("changed_by")?,
        changed_ms: row.get("changed_ms")?,
    })
}

fn policy_version(row: &Row) -> Result<PolicyVersion, StoreError> {
    Ok(PolicyVersion {
        generation: row.get("generation")?,
        version: row.get("version")?,
        policy: row.get("policy")?,
        changed_by: row.get("changed_by")?,
        changed_ms: row.get("changed_ms")?,
    })
}

fn constitution(row: &Row) -> Result<Constitution, StoreError> {
    Ok(Constitution {
        name: row.get("name")?,
        revision: row.get("current")?,
        text: row.get("body")?,
        version: row.get("version")?,
        changed_by: row.get("changed_by")?,
        changed_ms: row.get("changed_ms")?,
    })
}

fn current(row: &Row) -> Result<Current, StoreError> {
    Ok(Current {
        name: row.get("name")?,
        revision: row.get("current")?,
        version: row.get("version")?,
        changed_by: row.get("changed_by")?,
        changed_ms: row.get("changed_ms")?,
    })
}

fn revision_row(row: &Row) -> Result<Revision, StoreError> {
    Ok(Revision {
        name: row.get("name")?,
        revision: row.get("revision")?,
        text: row.get("body")?,
        added_by: row.get("added_by")?,
        added_ms: row.get("added_ms")?,
    })
}

fn key(row: &Row) -> Result<Key, StoreError> {
    Ok(Key {
        tenant: row.get("tenant")?,
        id: row.get("id")?,
        sha256: row.get::<&str>("sha256")?.parse()?,
        note: row.get("note")?,
        created_ms: row.get("created_ms")?,
        not_before_ms: row.get("not_before_ms")?,
        expires_ms: row.get("expires_ms")?,
        revoked_ms: row.get("revoked_ms")?,
    })
}

fn change(row: &Row) -> Result<Change, StoreError> {
    Ok(Change {
        generation: row.get("generation")?,
        kind: Kind::parse(row.get("kind")?)?,
        tenant: row.get("tenant")?,
        name: row.get("name")?,
        action: row.get("action")?,
        changed_by: row.get("changed_by")?,
        changed_ms: row.get("changed_ms")?,
    })
}
