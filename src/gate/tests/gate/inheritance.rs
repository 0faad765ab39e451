//! Templates, tables by generation model, and what is refused of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluegate_gate::policy::{Explained, Mode, PieceKind, PolicyPiece, RetainedPictures};
use cluegate_gate::{ConstitutionText, Constitutions, Gate, GateError, MemoryLog, Policies};

use cluegate_gate::fakes::{CONSTITUTION, World};

/// Constitutions in memory, as a store has them.
#[derive(Debug, Default)]
pub(crate) struct Shelf(pub(crate) BTreeMap<String, String>);

impl Shelf {
    pub(crate) fn with(texts: &[(&str, &str)]) -> Arc<Self> {
        let texts = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Arc::new(Self(texts.collect()))
    }
}

impl Constitutions for Shelf {
    fn text(&self, name: &str) -> Result<ConstitutionText, String> {
        let text = self.0.get(name).ok_or_else(|| "the store has no constitution of this name".to_owned())?;
        Ok(ConstitutionText { origin: format!("constitution {name}"), text: text.as_str().into() })
    }
}

pub(crate) fn piece(kind: PieceKind, name: &str, text: &str) -> PolicyPiece {
    PolicyPiece {
        kind,
        name: name.to_owned(),
        origin: format!("the store's {kind} {name}"),
        text: text.to_owned(),
    }
}

pub(crate) fn tenant(name: &str, text: &str) -> PolicyPiece {
    piece(PieceKind::Tenant, name, text)
}

fn template(name: &str, text: &str) -> PolicyPiece {
    piece(PieceKind::Template, name, text)
}

const FILE: &str = r#"
[template.base]
tries = 2
rules = ["armed", "smoking"]
[template.base.action]
default = "hold"
[template.base.action.rule]
smoking = "allow"
[template.base.limits]
max_pictures = 4
[template.base.model."sd*"]
tries = 5
[template.strict]
extends = "base"
mode = "enforce"
[template.strict.action]
default = "block"
[tenant.kids]
extends = "strict"
rules = ["armed"]
[tenant.kids.action.rule]
armed = "regenerate"
[tenant.kids.model."sdxl-*"]
tries = 7
limits.max_pictures = 1
[tenant.kids.model."sdxl-turbo"]
priority = 9
"#;

#[test]
fn tables_are_merged_key_by_key_and_lists_are_replaced() {
    let policies = Policies::from_toml(FILE, "policy.toml").unwrap();
    let kids = policies.get("kids").unwrap();
    assert_eq!((kids.tries, kids.limits.max_pictures, &kids.rules[..]), (2, 4, &["armed".to_owned()][..]));
    assert_eq!(kids.limits.max_prompt_bytes, 16_384, "what nobody names is at its default");
    let of = |rule: &str| kids.actions.of(rule, cluegate_constitution::Severity::Low).as_str();
    assert_eq!((of("armed"), of("smoking"), of("other")), ("regenerate", "allow", "block"));
}

#[test]
fn the_most_specific_pattern_holds_alone() {
    let policies = Policies::from_toml(FILE, "policy.toml").unwrap();
    let kids = policies.tenant("kids").unwrap();
    let of = |model: Option<&str>| {
        let policy = kids.for_model(model);
        (
            policy.model.as_deref().map(str::to_owned),
            policy.tries,
            policy.limits.max_pictures,
            policy.priority,
        )
    };
    let named = |pattern: &str| Some(pattern.to_owned());
    assert_eq!(of(None), (None, 2, 4, 5));
    assert_eq!(of(Some("flux")), (None, 2, 4, 5));
    assert_eq!(of(Some("sd3")), (named("sd*"), 5, 4, 5));
    assert_eq!(of(Some("sdxl-base")), (named("sdxl-*"), 7, 1, 5));
    // Not laid over the other patterns that fit.
    assert_eq!(of(Some("sdxl-turbo")), (named("sdxl-turbo"), 2, 4, 9));
}

#[test]
fn every_value_says_where_it_comes_from() {
    let policies = Policies::from_toml(FILE, "policy.toml").unwrap();
    let source = |model, key: &str| {
        let all = policies.explain("kids", model).unwrap();
        let Explained { value, source, .. } = all.into_iter().find(|value| value.key == key).unwrap();
        format!("{value} by {source}")
    };
    assert_eq!(source(None, "tries"), "2 by template.base of policy.toml");
    assert_eq!(source(None, "action.default"), "\"block\" by template.strict of policy.toml");
    assert_eq!(source(None, "action.rule.armed"), "\"regenerate\" by tenant.kids of policy.toml");
    assert_eq!(source(None, "on_error"), "\"block\" by default");
    assert_eq!(source(Some("sd3"), "tries"), "5 by template.base.model.\"sd*\" of policy.toml");
    assert_eq!(
        source(Some("sdxl-x"), "limits.max_pictures"),
        "1 by tenant.kids.model.\"sdxl-*\" of policy.toml"
    );
    assert!(matches!(policies.explain("kid", None), Err(GateError::UnknownTenant { .. })));
}

/// What is explained is what holds: written out as one table, it makes the same policy.
#[test]
fn an_explanation_written_out_is_the_policy() {
    let policies = Policies::from_toml(FILE, "policy.toml").unwrap();
    for model in [None, Some("sd3"), Some("sdxl-turbo")] {
        let flat: Vec<String> = policies
            .explain("kids", model)
            .unwrap()
            .iter()
            .map(|value| format!("tenant.kids.{} = {}", value.key, value.value))
            .collect();
        let again = Policies::from_toml(&flat.join("\n"), "flat.toml").unwrap();
        let (again, first) = (again.get("kids").unwrap(), policies.tenant("kids").unwrap().for_model(model));
        assert_eq!(***again, ***first);
    }
}

#[test]
fn a_quoted_parameter_and_a_table_are_one_key() {
    let text = "[template.a.parameter]\n\"crowd.people\" = 9\n[tenant.t]\nextends = \"a\"\n[tenant.t.parameter]\ncrowd.people = 20";
    let policies = Policies::from_toml(text, "policy.toml").unwrap();
    let settings = &policies.get("t").unwrap().parameters;
    assert_eq!(settings.iter().map(|setting| setting.value).collect::<Vec<_>>(), [20.0]);
}

#[test]
fn the_keys_of_the_service_are_typed() {
    let text = r#"
[tenant.t]
mode = "shadow"
priority = 9
[tenant.t.canary]
constitution = "level-1"
share = 0.25
decides = "canary"
[tenant.t.retention]
pictures = "withheld"
picture_days = 7
decision_days = 365
never = ["armed"]
[tenant.t.quota]
pictures_per_day = 1000
requests_per_minute = 60
burst = 10
in_work = 2
cost_per_month = 12.5
price_per_1000_passes = 0.02
price_per_judge_second = 0.001
"#;
    let policies = Policies::from_toml(text, "policy.toml").unwrap();
    let policy = policies.get("t").unwrap();
    assert_eq!((policy.mode, policy.priority), (Mode::Shadow, 9));
    assert_eq!(policy.canary.as_ref().unwrap().share, 0.25);
    assert_eq!(
        (policy.retention.pictures, policy.retention.decision_days),
        (RetainedPictures::Withheld, Some(365))
    );
    assert_eq!((policy.quota.pictures_per_day, policy.quota.pictures_per_month), (Some(1000), None));
    assert!((policy.quota.price(500, 3.0) - 0.013).abs() < 1e-12);
    // Nothing is judged twice for a share of nothing.
    let off = "[tenant.t]\n[tenant.t.canary]\nconstitution = \"level-1\"\nshare = 0";
    assert_eq!(Policies::from_toml(off, "policy.toml").unwrap().get("t").unwrap().canary, None);
}

#[test]
fn what_cannot_be_used_is_refused_and_explained() {
    let refused = |text: &str| Policies::from_toml(text, "policy.toml").unwrap_err().to_string();
    let cases = [
        (
            "cycle",
            "[template.a]\nextends = \"b\"\n[template.b]\nextends = \"a\"\n[tenant.t]\nextends = \"a\"",
        ),
        ("itself", "[template.a]\nextends = \"a\"\n[tenant.t]"),
        (
            "unknown template",
            "[template.basis]\n[template.a]\nextends = \"basic\"\n[tenant.t]\nextends = \"a\"",
        ),
        ("a tenant is no template", "[tenant.a]\n[tenant.b]\nextends = \"a\""),
        ("extends a number", "[tenant.t]\nextends = 7"),
        ("unknown key in a template", "[template.a]\ntires = 2\n[tenant.t]"),
        ("unknown key in a model table", "[tenant.t.model.\"sd*\"]\nlimits.max_pixel = 2"),
        ("unknown key in a canary", "[tenant.t.canary]\nconstitution = \"scene\"\nshares = 0.1"),
        (
            "wrong type in a template",
            "[template.a]\ntries = 2\npriority = \"high\"\n[tenant.t]\nextends = \"a\"",
        ),
        ("value in a template", "[template.a]\npriority = 10\n[tenant.t]\nextends = \"a\""),
        ("value in a model table", "[tenant.t.model.\"sd*\"]\ntries = 0"),
        ("bad glob", "[tenant.t.model.\"sd[xl]\"]\ntries = 2"),
        ("empty glob", "[tenant.t.model.\"\"]\ntries = 2"),
        ("a model table in another", "[tenant.t.model.a.model.b]\ntries = 2"),
        ("a model table that extends", "[template.a]\n[tenant.t.model.a]\nextends = \"a\""),
        ("share out of range", "[tenant.t.canary]\nconstitution = \"scene\"\nshare = 1.5"),
        ("canary of nothing", "[tenant.t.canary]\nshare = 0.5"),
        ("shadow that releases unjudged", "[tenant.t]\nmode = \"shadow\"\non_error = \"release-unjudged\""),
        ("unknown mode", "[tenant.t]\nmode = \"watch\""),
        ("days", "[tenant.t.retention]\npicture_days = 0"),
        ("quota of nothing", "[tenant.t.quota]\npictures_per_day = 0"),
        ("cost without a price", "[tenant.t.quota]\ncost_per_month = 5"),
        ("burst without a rate", "[tenant.t.quota]\nburst = 5"),
        ("a price that is none", "[tenant.t.quota]\nprice_per_judge_second = nan"),
        ("blank name", "[tenant.\" \"]\ntries = 1"),
        ("templates alone", "[template.a]\ntries = 1"),
        ("a tenant that is no table", "tenant = 3"),
    ];
    let all: Vec<String> =
        cases.iter().map(|(name, text)| format!("{name}\n    {}\n", refused(text))).collect();
    insta::assert_snapshot!("refused_policies", all.join("\n"));
    let long: String = (0..40).map(|n| format!("[template.a{n}]\nextends = \"a{}\"\n", n + 1)).collect();
    let long = refused(&format!("{long}[template.a40]\n[tenant.t]\nextends = \"a0\""));
    assert!(long.contains("goes over more than 32 tables"), "{long}");
}

#[test]
fn pieces_are_refused_by_their_origin() {
    let refused =
        |pieces: Vec<PolicyPiece>| Policies::from_pieces(pieces, Shelf::with(&[])).unwrap_err().to_string();
    let all = [
        refused(vec![template("a", ""), tenant("a", ""), template("a", "tries = 1")]),
        refused(vec![tenant("t", "tries = \"two\"")]),
        refused(vec![tenant("t", "[actions]\ndefault = \"hold\"")]),
        refused(vec![tenant("t", "extends = \"gone\"")]),
        refused(vec![tenant("a.b", "tries = 0")]),
        refused(vec![tenant("", "")]),
        refused(vec![tenant("t", "[tenant.t]\ntries = 2")]),
    ];
    insta::assert_snapshot!("refused_pieces", all.join("\n"));
    assert_eq!(Policies::from_pieces([], Shelf::with(&[])).unwrap().tenants().count(), 0);
}

#[test]
fn what_only_constitutions_tell_is_refused_when_a_gate_is_made() {
    let other = CONSTITUTION.replace("\"world\"", "\"other\"").replace("id = \"sword\"", "id = \"axe\"");
    let shelf = Shelf::with(&[("world", CONSTITUTION), ("other", &other), ("broken", "name = 3")]);
    let gate = |text: &str| {
        let policies = Policies::from_pieces([tenant("t", text)], Arc::clone(&shelf) as _).unwrap();
        Gate::new(&policies, Arc::new(World::new([])), Arc::new(MemoryLog::new(1)))
    };
    let refused = |text: &str| gate(text).err().unwrap().to_string();
    let all = [
        refused("constitution = \"nowhere\""),
        refused("constitution = \"broken\""),
        refused("constitution = \"world\"\n[canary]\nconstitution = \"nowhere\""),
        refused("constitution = \"world\"\n[model.\"sd*\"]\nconstitution = \"nowhere\""),
        refused("constitution = \"world\"\nrules = [\"swrd\"]"),
        refused("constitution = \"world\"\n[retention]\nnever = [\"swrd\"]"),
        refused(
            "constitution = \"world\"\n[canary]\nconstitution = \"other\"\n[action.rule]\nspear = \"hold\"",
        ),
        refused("constitution = \"world\"\n[parameter]\nbeer.glasses = 2"),
    ];
    insta::assert_snapshot!("refused_constitutions", all.join("\n"));
    // A rule that only one of the two has may be named; the other constitution goes without.
    let both = "constitution = \"world\"\nrules = [\"beer\", \"axe\"]\n[canary]\nconstitution = \"other\"";
    assert_eq!(gate(both).unwrap().constitution("t").unwrap().rules().len(), 1);
}
