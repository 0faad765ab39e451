//! Constitutions of any size, made of what the scene world's models know.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use cluegate::constitution::Constitution;
use cluegate::mini::{Role, World};
use serde::Serialize;

/// What a subject `{s}` does with a hazard `{h}`, by the hazard's category.
const RELATIONS: [(&str, &str); 9] = [
    ("weapon", "{s} is holding {h}"),
    ("alcohol", "{s} is drinking {h}"),
    ("drug", "{s} is taking {h}"),
    ("fire", "the body of {s} is on {h}"),
    ("blood", "{s} has a bloody injury"),
    ("cigarette", "{s} is smoking {h}"),
    ("bed", "{s} is lying on {h}"),
    ("bathtub", "{s} is in {h}"),
    ("death", "{s} is touching {h}"),
];

/// A statement and the word that a detector looks for.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Asked {
    statement: String,
    central: Vec<String>,
}

/// A rule about one subject and one hazard.
struct Theme {
    /// As a caption says it: "a man holding a knife".
    caption: String,
    subject: Asked,
    relation: Asked,
}

#[derive(Serialize)]
struct File {
    name: String,
    thresholds: BTreeMap<&'static str, f64>,
    rule: Vec<Rule>,
}

#[derive(Serialize)]
struct Rule {
    id: String,
    text: String,
    objectiveness: u8,
    severity: &'static str,
    precondition: Vec<Link>,
}

#[derive(Serialize)]
struct Link {
    any: Vec<Asked>,
}

impl Theme {
    fn rule(&self, id: String) -> Rule {
        let text = format!("The image should not show {}.", self.caption);
        let precondition =
            [&self.subject, &self.relation].map(|asked| Link { any: vec![asked.clone()] }).into();
        Rule { id, text, objectiveness: 10, severity: "low", precondition }
    }
}

fn noun(world: &World, class: usize) -> String {
    let class = &world.classes[class];
    format!("{} {}", class.article, class.name).trim().to_owned()
}

fn visible(world: &World, class: usize) -> Asked {
    let statement = format!("{} is visible", noun(world, class));
    Asked { statement, central: vec![world.classes[class].name.clone()] }
}

/// Every subject with every hazard, so ordered that neighbours differ in both.
fn themes(world: &World) -> Vec<Theme> {
    let subjects: Vec<usize> =
        (0..world.classes.len()).filter(|&class| world.role(class) == Role::Subject).collect();
    let hazards: Vec<(usize, &str)> = RELATIONS
        .iter()
        .flat_map(|(category, form)| world.classes_of(category).into_iter().map(move |class| (class, *form)))
        .collect();
    let mut themes = Vec::with_capacity(subjects.len() * hazards.len());
    for turn in 0..hazards.len() {
        for (place, &subject) in subjects.iter().enumerate() {
            let (hazard, form) = hazards[(place + turn) % hazards.len()];
            let say =
                |form: &str| form.replace("{s}", &noun(world, subject)).replace("{h}", &noun(world, hazard));
            let category = world.categories.get(&world.classes[hazard].category);
            let caption = category.and_then(|category| category.caption.as_deref());
            let central = vec![world.classes[hazard].name.clone()];
            themes.push(Theme {
                caption: say(caption.unwrap_or("{s} and {h}")),
                subject: visible(world, subject),
                relation: Asked { statement: say(form), central },
            });
        }
    }
    themes
}

/// `count` distinct statements, mixed of what is visible and who touches what.
///
/// # Errors
/// If the world has fewer.
pub(crate) fn statements(world: &World, count: usize) -> anyhow::Result<Vec<String>> {
    let all = all_statements(world);
    ensure!(
        count <= all.len(),
        "the scene world has {} distinct statements, {count} were asked for",
        all.len()
    );
    Ok(all.into_iter().take(count).map(|asked| asked.statement).collect())
}

fn all_statements(world: &World) -> Vec<Asked> {
    let mut all = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut themes = themes(world).into_iter();
    for class in 0..world.classes.len() {
        all.push(visible(world, class));
        all.extend(themes.next().map(|theme| theme.relation));
    }
    all.extend(themes.map(|theme| theme.relation));
    all.retain(|asked| seen.insert(asked.statement.clone()));
    all
}

/// A constitution of `count` rules of two links each, a subject and what it does; `scanned` says whether the relevance
/// scan may leave rules out.
///
/// # Errors
/// If the world has fewer themes.
pub(crate) fn of_rules(
    world: &World,
    name: &str,
    count: usize,
    scanned: bool,
) -> anyhow::Result<Constitution> {
    let themes = themes(world);
    ensure!(count <= themes.len(), "the scene world has {} themes, {count} were asked for", themes.len());
    let rule = |index: usize| themes[index].rule(format!("rule-{index}"));
    let thresholds = if scanned { BTreeMap::new() } else { BTreeMap::from([("relevance", -1.0)]) };
    parse(&File { name: name.to_owned(), thresholds, rule: (0..count).map(rule).collect() })
}

/// The rules of `scene` and one of the tenant's own, so that tenants differ and cost about the same.
///
/// # Errors
/// If the world has fewer themes than there are tenants.
pub(crate) fn of_tenant(world: &World, tenant: usize) -> anyhow::Result<Constitution> {
    let themes = themes(world);
    let theme = themes.get(tenant).with_context(|| format!("the scene world has {} themes", themes.len()))?;
    let scene = Constitution::shipped_text("scene").context("the constitution `scene` is missing")?;
    let own = toml::to_string(&BTreeMap::from([("rule", [theme.rule("own".to_owned())])]))?;
    Ok(Constitution::parse(&format!("{scene}\n{own}"), &format!("tenant-{tenant}"))?)
}

fn parse(file: &File) -> anyhow::Result<Constitution> {
    let text = toml::to_string(file)?;
    Constitution::parse(&text, &file.name).with_context(|| format!("the constitution {}", file.name))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn three_hundred_statements_are_distinct_and_sound_right() {
        let world = World::load().unwrap();
        let statements = statements(&world, 300).unwrap();
        assert_eq!(statements.iter().collect::<HashSet<_>>().len(), 300);
        for expected in ["a dog is visible", "fire is visible", "the body of a man is on fire"] {
            assert!(
                all_statements(&world).iter().any(|asked| asked.statement == expected),
                "{expected} is missing from {:?}",
                &statements[..20]
            );
        }
        assert!(statements.iter().all(|text| !text.contains(['{', '}']) && !text.contains("  ")));
        assert!(super::statements(&world, 10_000).is_err());
    }

    #[test]
    fn constitutions_have_as_many_rules_as_asked_for_and_differ_by_tenant() {
        let world = World::load().unwrap();
        for count in [1, 300] {
            let constitution = of_rules(&world, "many", count, false).unwrap();
            assert_eq!(constitution.rules().len(), count);
            assert_eq!(constitution.thresholds().relevance, Some(-1.0));
            let relations = constitution.rules().iter().map(|rule| &rule.preconditions[1].any[0].text);
            assert_eq!(relations.collect::<HashSet<_>>().len(), count);
        }
        let tenants: HashSet<String> =
            (0..100).map(|tenant| of_tenant(&world, tenant).unwrap().revision().to_string()).collect();
        assert_eq!(tenants.len(), 100);
    }
}
