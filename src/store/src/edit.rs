//! Changing the store.

use crate::model::{Kind, MAX_NOTE_BYTES, MAX_TEXT_BYTES, NewKey, TenantState, check_name, check_text};
use crate::store::{Contents, generation};
use crate::{Arg, Backend, Database, Row, StoreError, Transaction, args};

/// Changes that [`Store::changes_since`](crate::Store::changes_since) and [`Store::history`](crate::Store::history) know of,
/// counted in commits; older ones are forgotten.
const KEPT_GENERATIONS: i64 = 100_000;

/// Largest version that is imported: far from where counting on would end.
const MAX_VERSION: i64 = 1 << 53;

/// Gives a copy that was just imported the version, author and time of the original.
const KEPT_TEMPLATE: &str = "UPDATE policy_version SET version = $2, changed_by = $3, changed_ms = $4
    WHERE kind = 'template' AND name = $1 AND generation = (SELECT value FROM store_generation)";
const KEPT_TENANT: &str = "UPDATE policy_version SET version = $2, changed_by = $3, changed_ms = $4
    WHERE kind = 'tenant' AND name = $1 AND generation = (SELECT value FROM store_generation)";

/// What PostgreSQL's notifications of commits are sent to; each bears the store's new number.
pub(crate) const CHANNEL: &str = "cluegate_generation";

/// Who makes an edit, and when.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    /// A person, or the id of the admin's key.
    pub by: &'a str,
    /// Milliseconds since 1970 (UTC), by the clock of whoever edits. Kept, and compared with nothing.
    pub at_ms: i64,
}

/// What an edit expects to find, so that two people do not undo each other's changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Anything or nothing.
    Any,
    /// Nothing by that name.
    Absent,
    /// This version.
    Version(i64),
}

/// Some changes that are made together by [`commit`](Self::commit), or not at all if this is dropped. A call that the store
/// refuses writes nothing and leaves the others as they are; after an error of the database nothing can be committed.
///
/// There is one edit at a time, over all gateways; keep it short.
#[derive(Debug)]
pub struct Edit {
    write: Transaction,
    generation: i64,
    by: String,
    at_ms: i64,
    changed: bool,
}

impl Edit {
    pub(crate) async fn begin(database: &Database, author: Author<'_>) -> Result<Self, StoreError> {
        check_name("author", author.by)?;
        let mut write = database.write().await?;
        // Takes the row's lock: from here on, no other edit sees or changes anything.
        let raise = "UPDATE store_generation SET value = value + 1 WHERE id = 1";
        write.execute(raise, args![]).await?;
        let generation = generation(&mut write).await?;
        Ok(Self { write, generation, by: author.by.to_owned(), at_ms: author.at_ms, changed: false })
    }

    /// Makes the changes, and gives the store's number after them: the old one if there were none.
    ///
    /// # Errors
    /// As the database says. If the connection broke during this call, nobody knows whether they were made.
    pub async fn commit(mut self) -> Result<i64, StoreError> {
        if !self.changed {
            self.write.finish().await?;
            return Ok(self.generation - 1);
        }
        let forget = "DELETE FROM store_change WHERE generation <= $1";
        self.write.execute(forget, args![self.generation - KEPT_GENERATIONS]).await?;
        if self.write.backend() == Backend::Postgres {
            let number = self.generation.to_string();
            self.write.execute("SELECT pg_notify($1, $2)", args![CHANNEL, &number]).await?;
        }
        self.write.commit().await?;
        Ok(self.generation)
    }

    /// Writes a template, and gives its new version. `policy` is TOML: the keys of its table in a policy file.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], [`StoreError::Conflict`], [`StoreError::Exists`], [`StoreError::Missing`], or as the
    /// database says.
    pub async fn put_template(
        &mut self,
        name: &str,
        policy: &str,
        expect: Expect,
    ) -> Result<i64, StoreError> {
        check_name("template", name)?;
        check_text("policy of a template", policy, MAX_TEXT_BYTES)?;
        let version = self.next_version(Kind::Template, name, expect).await?;
        let put =
            "INSERT INTO template (name, policy, version, changed_by, changed_ms) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (name) DO UPDATE SET policy = excluded.policy, version = excluded.version,
            changed_by = excluded.changed_by, changed_ms = excluded.changed_ms";
        let arguments = args![name, policy, version, &self.by, self.at_ms];
        self.write.execute(put, arguments).await?;
        self.keep(Kind::Template, name, version, policy).await?;
        self.log(Kind::Template, name, name, "put").await?;
        Ok(version)
    }

    /// Removes a template. Whether something extends it is the caller's to see.
    ///
    /// # Errors
    /// As [`put_template`](Self::put_template).
    pub async fn remove_template(&mut self, name: &str, expect: Expect) -> Result<(), StoreError> {
        self.existing(Kind::Template, name, expect).await?;
        self.write.execute("DELETE FROM template WHERE name = $1", args![name]).await?;
        self.log(Kind::Template, name, name, "remove").await
    }

    /// Writes a tenant's policy, and gives its new version. `policy` is TOML: the keys of its table in a policy file. A new
    /// tenant is active; one that is there keeps its state.
    ///
    /// # Errors
    /// As [`put_template`](Self::put_template).
    pub async fn put_tenant(&mut self, name: &str, policy: &str, expect: Expect) -> Result<i64, StoreError> {
        check_name("tenant", name)?;
        check_text("policy of a tenant", policy, MAX_TEXT_BYTES)?;
        let version = self.next_version(Kind::Tenant, name, expect).await?;
        let put = "INSERT INTO tenant (name, policy, state, version, changed_by, changed_ms)
            VALUES ($1, $2, 'active', $3, $4, $5)
            ON CONFLICT (name) DO UPDATE SET policy = excluded.policy, version = excluded.version,
            changed_by = excluded.changed_by, changed_ms = excluded.changed_ms";
        let arguments = args![name, policy, version, &self.by, self.at_ms];
        self.write.execute(put, arguments).await?;
        self.keep(Kind::Tenant, name, version, policy).await?;
        self.log(Kind::Tenant, name, name, "put").await?;
        Ok(version)
    }

    /// Keeps what a policy says now for whoever asks later. Of several texts in one edit, the last is kept.
    async fn keep(&mut self, kind: Kind, name: &str, version: i64, policy: &str) -> Result<(), StoreError> {
        let keep = "INSERT INTO policy_version (kind, name, generation, version, policy, changed_by, changed_ms)
            VALUES ($1, $2, $3, $4, $5, $6, $7)
            ON CONFLICT (kind, name, generation) DO UPDATE SET version = excluded.version, policy = excluded.policy";
        let arguments = args![kind.name(), name, self.generation, version, policy, &self.by, self.at_ms];
        self.write.execute(keep, arguments).await?;
        Ok(())
    }

    /// Suspends a tenant or takes it back, and gives its new version.
    ///
    /// # Errors
    /// As [`put_template`](Self::put_template).
    pub async fn set_state(
        &mut self,
        name: &str,
        state: TenantState,
        expect: Expect,
    ) -> Result<i64, StoreError> {
        let version = self.existing(Kind::Tenant, name, expect).await? + 1;
        let set =
            "UPDATE tenant SET state = $2, version = $3, changed_by = $4, changed_ms = $5 WHERE name = $1";
        let arguments = args![name, state.name(), version, &self.by, self.at_ms];
        self.write.execute(set, arguments).await?;
        let action = match state {
            TenantState::Active => "resume",
            TenantState::Suspended => "suspend",
        };
        self.log(Kind::Tenant, name, name, action).await?;
        Ok(version)
    }

    /// Removes a tenant with its keys and usage. Its decisions stay in their log.
    ///
    /// # Errors
    /// As [`put_template`](Self::put_template).
    pub async fn remove_tenant(&mut self, name: &str, expect: Expect) -> Result<(), StoreError> {
        self.existing(Kind::Tenant, name, expect).await?;
        let keys = self.write.fetch_all("SELECT id FROM api_key WHERE tenant = $1", args![name]).await?;
        for row in keys {
            self.log(Kind::Key, name, row.get("id")?, "remove").await?;
        }
        for delete in [
            "DELETE FROM api_key WHERE tenant = $1",
            "DELETE FROM tenant_usage WHERE tenant = $1",
            "DELETE FROM tenant WHERE name = $1",
        ] {
            self.write.execute(delete, args![name]).await?;
        }
        self.log(Kind::Tenant, name, name, "remove").await
    }

    /// Adds a revision of a constitution without making it current. One that is there with the same text stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], [`StoreError::OtherText`], or as the database says.
    pub async fn add_revision(&mut self, name: &str, revision: &str, text: &str) -> Result<(), StoreError> {
        check_name("constitution", name)?;
        check_name("revision", revision)?;
        check_text("constitution", text, MAX_TEXT_BYTES)?;
        let find = "SELECT body FROM constitution_revision WHERE name = $1 AND revision = $2";
        if let Some(row) = self.write.fetch_optional(find, args![name, revision]).await? {
            if row.get::<&str>("body")? == text {
                return Ok(());
            }
            return Err(StoreError::OtherText { name: name.to_owned(), revision: revision.to_owned() });
        }
        let add = "INSERT INTO constitution_revision (name, revision, body, added_by, added_ms)
            VALUES ($1, $2, $3, $4, $5)";
        let arguments = args![name, revision, text, &self.by, self.at_ms];
        self.write.execute(add, arguments).await?;
        self.log(Kind::Constitution, name, name, "add").await
    }

    /// Makes a revision the current one, and gives the constitution's new version.
    ///
    /// # Errors
    /// As [`put_template`](Self::put_template); [`StoreError::Missing`] if there is no such revision.
    pub async fn set_current(
        &mut self,
        name: &str,
        revision: &str,
        expect: Expect,
    ) -> Result<i64, StoreError> {
        let missing = || StoreError::Missing { kind: Kind::Constitution, name: format!("{name}@{revision}") };
        if check_name("constitution", name).and_then(|()| check_name("revision", revision)).is_err() {
            return Err(missing());
        }
        let version = self.next_version(Kind::Constitution, name, expect).await?;
        let find = "SELECT name FROM constitution_revision WHERE name = $1 AND revision = $2";
        self.write.fetch_optional(find, args![name, revision]).await?.ok_or_else(missing)?;
        let set = "INSERT INTO constitution (name, current, version, changed_by, changed_ms)
            VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (name) DO UPDATE SET current = excluded.current, version = excluded.version,
            changed_by = excluded.changed_by, changed_ms = excluded.changed_ms";
        let arguments = args![name, revision, version, &self.by, self.at_ms];
        self.write.execute(set, arguments).await?;
        self.log(Kind::Constitution, name, name, "current").await?;
        Ok(version)
    }

    /// Removes the name of a constitution; its revisions stay.
    ///
    /// # Errors
    /// As [`put_template`](Self::put_template).
    pub async fn remove_constitution(&mut self, name: &str, expect: Expect) -> Result<(), StoreError> {
        self.existing(Kind::Constitution, name, expect).await?;
        self.write.execute("DELETE FROM constitution WHERE name = $1", args![name]).await?;
        self.log(Kind::Constitution, name, name, "remove").await
    }

    /// Gives a tenant one more key.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], [`StoreError::Missing`] without the tenant, [`StoreError::Exists`] if it has a key of that
    /// id, [`StoreError::KeyTaken`] if anybody has that key, or as the database says.
    pub async fn add_key(&mut self, tenant: &str, key: &NewKey) -> Result<(), StoreError> {
        check_name("key", &key.id)?;
        check_text("note on a key", &key.note, MAX_NOTE_BYTES)?;
        let not_before_ms = key.not_before_ms.unwrap_or(self.at_ms);
        if key.expires_ms.is_some_and(|expires| expires <= not_before_ms) {
            let problem = "it expires before it is valid".to_owned();
            return Err(StoreError::Invalid { what: "expiry of a key", problem });
        }
        self.existing(Kind::Tenant, tenant, Expect::Any).await?;
        let same_id = "SELECT id FROM api_key WHERE tenant = $1 AND id = $2";
        if self.write.fetch_optional(same_id, args![tenant, &key.id]).await?.is_some() {
            return Err(StoreError::Exists { kind: Kind::Key, name: key.id.clone() });
        }
        let hash = key.sha256.to_string();
        let add = "INSERT INTO api_key (tenant, id, sha256, note, created_ms, not_before_ms, expires_ms)
            VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (sha256) DO NOTHING";
        let arguments = args![tenant, &key.id, &hash, &key.note, self.at_ms, not_before_ms, key.expires_ms];
        if self.write.execute(add, arguments).await? == 0 {
            return Err(StoreError::KeyTaken { id: key.id.clone() });
        }
        self.log(Kind::Key, tenant, &key.id, "add").await
    }

    /// Gives a tenant a key in place of `old`, which stays valid until just before `until_ms`, or until its own end if that
    /// comes first.
    ///
    /// # Errors
    /// As [`add_key`](Self::add_key); [`StoreError::Missing`] without the old key.
    pub async fn rotate_key(
        &mut self,
        tenant: &str,
        old: &str,
        new: &NewKey,
        until_ms: i64,
    ) -> Result<(), StoreError> {
        let row = self.find_key(tenant, old).await?;
        let expires: Option<i64> = row.get("expires_ms")?;
        self.add_key(tenant, new).await?;
        let until = expires.map_or(until_ms, |expires| expires.min(until_ms));
        let expire = "UPDATE api_key SET expires_ms = $3 WHERE tenant = $1 AND id = $2";
        self.write.execute(expire, args![tenant, old, until]).await?;
        self.log(Kind::Key, tenant, old, "expire").await
    }

    /// Ends a key for ever. One that is revoked stays so, with the time of the first call.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if the tenant has no such key, or as the database says.
    pub async fn revoke_key(&mut self, tenant: &str, id: &str) -> Result<(), StoreError> {
        let row = self.find_key(tenant, id).await?;
        if row.get::<Option<i64>>("revoked_ms")?.is_some() {
            return Ok(());
        }
        let revoke = "UPDATE api_key SET revoked_ms = $3 WHERE tenant = $1 AND id = $2";
        self.write.execute(revoke, args![tenant, id, self.at_ms]).await?;
        self.log(Kind::Key, tenant, id, "revoke").await
    }

    /// Writes what [`Store::export`](crate::Store::export) gave into this store: as it is, with versions, authors and times.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if something of it is there already, or as for each by itself.
    pub async fn import(&mut self, contents: &Contents) -> Result<(), StoreError> {
        for template in &contents.templates {
            self.put_template(&template.name, &template.policy, Expect::Absent).await?;
            let keep = "UPDATE template SET version = $2, changed_by = $3, changed_ms = $4 WHERE name = $1";
            let by = (template.changed_by.as_str(), template.changed_ms);
            self.restamp(keep, &template.name, template.version, by).await?;
            self.restamp(KEPT_TEMPLATE, &template.name, template.version, by).await?;
        }
        for tenant in &contents.tenants {
            self.put_tenant(&tenant.name, &tenant.policy, Expect::Absent).await?;
            if tenant.state != TenantState::Active {
                self.set_state(&tenant.name, tenant.state, Expect::Any).await?;
            }
            let keep = "UPDATE tenant SET version = $2, changed_by = $3, changed_ms = $4 WHERE name = $1";
            let by = (tenant.changed_by.as_str(), tenant.changed_ms);
            self.restamp(keep, &tenant.name, tenant.version, by).await?;
            self.restamp(KEPT_TENANT, &tenant.name, tenant.version, by).await?;
        }
        for revision in &contents.revisions {
            self.add_revision(&revision.name, &revision.revision, &revision.text).await?;
            check_name("author", &revision.added_by)?;
            let keep = "UPDATE constitution_revision SET added_by = $3, added_ms = $4
                WHERE name = $1 AND revision = $2";
            let arguments = args![&revision.name, &revision.revision, &revision.added_by, revision.added_ms];
            self.write.execute(keep, arguments).await?;
        }
        for current in &contents.current {
            self.set_current(&current.name, &current.revision, Expect::Absent).await?;
            let keep =
                "UPDATE constitution SET version = $2, changed_by = $3, changed_ms = $4 WHERE name = $1";
            self.restamp(keep, &current.name, current.version, (&current.changed_by, current.changed_ms))
                .await?;
        }
        for key in &contents.keys {
            let new = NewKey {
                id: key.id.clone(),
                sha256: key.sha256,
                note: key.note.clone(),
                not_before_ms: Some(key.not_before_ms),
                expires_ms: None,
            };
            self.add_key(&key.tenant, &new).await?;
            let keep = "UPDATE api_key SET created_ms = $3, expires_ms = $4, revoked_ms = $5
                WHERE tenant = $1 AND id = $2";
            let arguments = args![&key.tenant, &key.id, key.created_ms, key.expires_ms, key.revoked_ms];
            self.write.execute(keep, arguments).await?;
        }
        Ok(())
    }

    async fn restamp(
        &mut self,
        update: &'static str,
        name: &str,
        version: i64,
        (by, at_ms): (&str, i64),
    ) -> Result<(), StoreError> {
        check_name("author", by)?;
        if !(1..=MAX_VERSION).contains(&version) {
            let problem = format!("expected 1 to {MAX_VERSION} of {name:?}, found {version}");
            return Err(StoreError::Invalid { what: "version", problem });
        }
        self.write.execute(update, args![name, version, by, at_ms]).await?;
        Ok(())
    }

    /// The version after the one that is there, or 1.
    async fn next_version(&mut self, kind: Kind, name: &str, expect: Expect) -> Result<i64, StoreError> {
        match (self.version(kind, name).await?, expect) {
            (None, Expect::Any | Expect::Absent) => Ok(1),
            (None, Expect::Version(_)) => Err(StoreError::Missing { kind, name: name.to_owned() }),
            (Some(_), Expect::Absent) => Err(StoreError::Exists { kind, name: name.to_owned() }),
            (Some(found), expect) => checked(kind, name, found, expect).map(|version| version + 1),
        }
    }

    /// The version of what has to be there.
    async fn existing(&mut self, kind: Kind, name: &str, expect: Expect) -> Result<i64, StoreError> {
        let missing = || StoreError::Missing { kind, name: name.to_owned() };
        if check_name(kind.name(), name).is_err() {
            return Err(missing());
        }
        let found = self.version(kind, name).await?.ok_or_else(missing)?;
        checked(kind, name, found, expect)
    }

    async fn version(&mut self, kind: Kind, name: &str) -> Result<Option<i64>, StoreError> {
        let find = match kind {
            Kind::Template => "SELECT version FROM template WHERE name = $1",
            Kind::Tenant => "SELECT version FROM tenant WHERE name = $1",
            Kind::Constitution => "SELECT version FROM constitution WHERE name = $1",
            // A key is added, expires and is revoked; none of this can be lost to another edit.
            Kind::Key => return Ok(None),
        };
        let row = self.write.fetch_optional(find, args![name]).await?;
        Ok(row.map(|row| row.get("version")).transpose()?)
    }

    async fn find_key(&mut self, tenant: &str, id: &str) -> Result<Row, StoreError> {
        let missing = || StoreError::Missing { kind: Kind::Key, name: id.to_owned() };
        if check_name("tenant", tenant).and_then(|()| check_name("key", id)).is_err() {
            return Err(missing());
        }
        let find = "SELECT expires_ms, revoked_ms FROM api_key WHERE tenant = $1 AND id = $2";
        self.write.fetch_optional(find, args![tenant, id]).await?.ok_or_else(missing)
    }

    /// Notes what was done. Of several changes to one thing in one edit, the last is noted.
    async fn log(&mut self, kind: Kind, tenant: &str, name: &str, action: &str) -> Result<(), StoreError> {
        self.changed = true;
        let log = "INSERT INTO store_change (generation, kind, tenant, name, action, changed_by, changed_ms)
            VALUES ($1, $2, $3, $4, $5, $6, $7)
            ON CONFLICT (generation, kind, tenant, name) DO UPDATE SET action = excluded.action";
        let arguments: [Arg<'_>; 7] = [
            self.generation.into(),
            kind.name().into(),
            tenant.into(),
            name.into(),
            action.into(),
            Arg::from(&self.by),
            self.at_ms.into(),
        ];
        self.write.execute(log, &arguments).await?;
        Ok(())
    }
}

fn checked(kind: Kind, name: &str, found: i64, expect: Expect) -> Result<i64, StoreError> {
    match expect {
        Expect::Version(expected) if expected != found => {
            Err(StoreError::Conflict { kind, name: name.to_owned(), expected, found })
        }
        Expect::Absent => Err(StoreError::Exists { kind, name: name.to_owned() }),
        _ => Ok(found),
    }
}
