//! A policy file that is changed table by table; comments and the rest of it stay.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cluegate_gate::Policies;
use cluegate_gate::policy::PieceKind;
use toml_edit::{DocumentMut, Item, Table, Value};

use crate::cli::write_file;

/// What the name of a file that is only checked ends with.
const TRIAL: &str = ".trial";

/// The text of a policy file.
pub(super) struct PolicyText {
    path: PathBuf,
    document: DocumentMut,
}

impl PolicyText {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let document = text.parse().with_context(|| format!("{} is no TOML", path.display()))?;
        Ok(Self { path: path.to_path_buf(), document })
    }

    /// Names of the tables of a kind.
    pub(super) fn names(&self, kind: PieceKind) -> Vec<String> {
        let tables = self.document.get(&kind.to_string()).and_then(Item::as_table_like);
        tables.into_iter().flat_map(|tables| tables.iter()).map(|(name, _)| name.to_owned()).collect()
    }

    /// The table of this name as it is written, without its header.
    pub(super) fn table(&self, kind: PieceKind, name: &str) -> anyhow::Result<Option<String>> {
        let item = self.document.get(&kind.to_string()).and_then(|tables| tables.get(name));
        let Some(item) = item else { return Ok(None) };
        let mut table = match item.clone().into_table() {
            Ok(table) => table,
            Err(_) => bail!("{}: `{kind}.{name}` is no table", self.path.display()),
        };
        anywhere(&mut table);
        table.decor_mut().clear();
        Ok(Some(DocumentMut::from(table).to_string()))
    }

    /// Puts a table in the place of the one of this name, or removes it.
    pub(super) fn put(&mut self, kind: PieceKind, name: &str, text: Option<&str>) -> anyhow::Result<()> {
        let origin = self.path.display().to_string();
        match text {
            Some(text) => insert(&mut self.document, &kind.to_string(), name, text).context(origin),
            None => {
                let tables = self.document.get_mut(&kind.to_string()).and_then(Item::as_table_like_mut);
                let removed = tables.and_then(|tables| tables.remove(name));
                removed.map(drop).with_context(|| format!("{origin}: there is no {kind} {name:?}"))
            }
        }
    }

    /// Checks the whole and writes it.
    pub(super) fn write(self) -> anyhow::Result<()> {
        let text = self.document.to_string();
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(TRIAL);
        // Beside the file, since constitutions are named from its folder.
        let trial = self.path.with_file_name(name);
        let checked = write_file(&trial, text.as_bytes()).and_then(|()| check(&trial));
        let _ = std::fs::remove_file(&trial);
        checked?;
        write_file(&self.path, text.as_bytes())
    }
}

/// Puts the table `text` under `kind` and `name`, in the place of one that is there.
pub(super) fn insert(document: &mut DocumentMut, kind: &str, name: &str, text: &str) -> anyhow::Result<()> {
    let tables = document.entry(kind).or_insert_with(|| {
        let mut tables = Table::new();
        tables.set_implicit(true);
        Item::Table(tables)
    });
    let tables = tables.as_table_like_mut().with_context(|| format!("`{kind}` is no table"))?;
    let mut table = table_of(text)?;
    match tables.get(name).and_then(Item::as_table) {
        Some(old) => *table.decor_mut() = old.decor().clone(),
        None => table.decor_mut().set_prefix("\n"),
    }
    tables.insert(name, Item::Table(table));
    Ok(())
}

/// Reads a policy file and every constitution that it names.
fn check(path: &Path) -> anyhow::Result<()> {
    let policies = Policies::load(path)?;
    check_constitutions(&policies)
}

/// Reads every constitution that policies name.
pub(crate) fn check_constitutions(policies: &Policies) -> anyhow::Result<()> {
    for tenant in policies.tenants().filter_map(|tenant| policies.tenant(tenant)) {
        for policy in tenant.all() {
            policies.constitution(policy)?;
        }
    }
    Ok(())
}

fn table_of(text: &str) -> anyhow::Result<Table> {
    let document: DocumentMut = text.parse().context("expected TOML as below [tenant.NAME]")?;
    let mut table = document.as_table().clone();
    anywhere(&mut table);
    table.set_implicit(false);
    Ok(table)
}

/// Forgets where tables stood in the text that they come from.
fn anywhere(table: &mut Table) {
    table.set_position(None);
    for (_, item) in table.iter_mut() {
        if let Item::Table(table) = item {
            anywhere(table);
        }
    }
}

/// The text of a table with some keys set. A value that is no TOML is a text.
pub(super) fn with_keys(text: &str, settings: &[String]) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse().context("expected TOML as below [tenant.NAME]")?;
    for setting in settings {
        let (path, value) =
            setting.split_once('=').with_context(|| format!("expected KEY=VALUE, got {setting:?}"))?;
        let value: Value = match value.trim().parse() {
            Ok(value) => value,
            Err(_) => value.into(),
        };
        let keys = toml_edit::Key::parse(path.trim()).with_context(|| format!("{path:?} is no key"))?;
        let Some((last, tables)) = keys.split_last() else { bail!("{path:?} is no key") };
        let mut table = document.as_table_mut();
        for key in tables {
            let inner = table.entry(key.get()).or_insert_with(|| Item::Table(Table::new()));
            table = inner.as_table_mut().with_context(|| format!("`{}` is no table", key.get()))?;
        }
        table.insert(last.get(), Item::Value(value));
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const POLICY: &str = "# of the house\n[template.base]\ntries = 2\n\n# the children's\n[tenant.kids]\nextends = \"base\"\n\
                          [tenant.kids.client]\nevidence = true # theirs\n\n[tenant.news]\n";

    #[test]
    fn a_table_is_changed_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.toml");
        std::fs::write(&path, POLICY).unwrap();
        let mut policy = PolicyText::read(&path).unwrap();
        let kids = policy.table(PieceKind::Tenant, "kids").unwrap().unwrap();
        assert!(kids.contains("extends = \"base\"") && kids.contains("[client]\nevidence = true"), "{kids}");
        let changed =
            with_keys(&kids, &["quota.pictures_per_day=5".into(), "on_error=block".into()]).unwrap();
        policy.put(PieceKind::Tenant, "kids", Some(&changed)).unwrap();
        policy.put(PieceKind::Tenant, "desk", Some("tries = 1\n")).unwrap();
        policy.write().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for kept in [
            "# of the house\n",
            "# the children's\n[tenant.kids]",
            "evidence = true # theirs",
            "[tenant.news]",
        ] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
        let policies = Policies::load(&path).unwrap();
        assert_eq!(policies.get("kids").unwrap().quota.pictures_per_day, Some(5));
        assert_eq!((policies.get("desk").unwrap().tries, policies.get("kids").unwrap().tries), (1, 2));
        // What cannot be used leaves the file, and nothing beside it.
        let mut wrong = PolicyText::read(&path).unwrap();
        wrong.put(PieceKind::Template, "base", None).unwrap();
        assert!(wrong.write().is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }
}
