use std::collections::BTreeSet;

use cluegate_constitution::{Constitution, Severity};

use super::*;

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/policy.schema.json");

fn refused(text: &str) -> String {
    Policies::from_toml(text, "policy.toml").unwrap_err().to_string()
}

/// Dotted paths of all keys of `table`.
fn keys_of(table: &toml::Table, path: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for (key, value) in table {
        let here = format!("{path}.{key}");
        if let toml::Value::Table(inner) = value {
            keys.extend(keys_of(inner, &here));
        }
        keys.insert(here);
    }
    keys
}

#[test]
fn the_default_policy_spells_out_every_default() {
    let raw: RawPolicies = toml::from_str(Policies::with_defaults_toml()).unwrap();
    let tenant = [("default".to_owned(), RawPolicy::default())].into();
    let expected = RawPolicies { tenant, ..RawPolicies::default() };
    assert_eq!(raw, expected);
    let written: toml::Table = Policies::with_defaults_toml().parse().unwrap();
    let all = toml::Table::try_from(&expected).unwrap();
    assert_eq!(keys_of(&written, ""), keys_of(&all, ""));
    insta::assert_snapshot!("default_policy", Policies::with_defaults_toml());
}

#[test]
fn the_shipped_policies_fit_their_constitutions() {
    for policies in [Policies::shipped_default().unwrap(), Policies::demo().unwrap()] {
        for policy in policies.iter() {
            assert!(matches!(policy.constitution, ConstitutionSource::Shipped(_)));
            policies.constitution(policy).unwrap();
        }
    }
    assert_eq!(Policies::demo().unwrap().tenants().collect::<Vec<_>>(), ["kids", "newsroom"]);
}

/// The example of docs/constitutions.md: each category in a state of its own.
#[test]
fn a_policy_chooses_a_state_for_each_category() {
    let page = include_str!("../../../../docs/constitutions.md");
    let at = page.find("[tenant.museum]").unwrap();
    let example = page[at..].split("```").next().unwrap();
    let policies = Policies::from_toml(example, "policy.toml").unwrap();
    let own = policies.constitution(policies.get("museum").unwrap()).unwrap();
    let ids: Vec<&str> = own.rules().iter().map(|rule| rule.id.as_str()).collect();
    let default = ["hate", "violence", "sexual-act", "crime", "self-harm", "animal-cruelty"];
    assert_eq!(ids, [&default[..], &["any-weapon-or-substance"]].concat());
    assert!(own.rule("any-weapon-or-substance").unwrap().unless.is_empty());
}

#[test]
fn the_demo_tenants_disagree() {
    let policies = Policies::demo().unwrap();
    let scene = Constitution::shipped("scene").unwrap();
    let action = |tenant: &str, rule: &str| {
        policies.get(tenant).unwrap().actions.of(rule, scene.rule(rule).unwrap().severity)
    };
    assert_eq!((action("kids", "armed"), action("newsroom", "armed")), (Action::Block, Action::Allow));
    let kids: BTreeSet<Action> = scene.rules().iter().map(|rule| action("kids", &rule.id)).collect();
    assert_eq!(kids, [Action::Allow, Action::Redact, Action::Regenerate, Action::Block].into());
}

#[test]
fn a_tenant_can_be_judged_by_some_of_the_rules() {
    let text = "[tenant.t]\nrules = [\"armed\", \"smoking\"]\n[tenant.t.thresholds]\nbeta = 0.25";
    let policies = Policies::from_toml(text, "policy.toml").unwrap();
    let own = policies.constitution(policies.get("t").unwrap()).unwrap();
    let whole = Constitution::shipped("scene").unwrap();
    assert_eq!(own.rules(), [whole.rule("armed").unwrap().clone(), whole.rule("smoking").unwrap().clone()]);
    assert_eq!((own.thresholds().beta, own.thresholds().alpha1), (0.25, whole.thresholds().alpha1));
    assert_ne!(own.revision(), whole.revision());
    let untouched = Policies::shipped_default().unwrap();
    let same = untouched.constitution(untouched.get("default").unwrap()).unwrap();
    assert_eq!(same.revision(), whole.revision());
    let misspelt = Policies::from_toml("[tenant.t]\nrules = [\"armd\"]", "policy.toml").unwrap();
    let error = misspelt.constitution(misspelt.get("t").unwrap()).unwrap_err().to_string();
    assert_eq!(
        error,
        "tenant t: `rules` names the rule `armd`, which the constitution scene does not have (did you mean `armed`?)"
    );
}

#[test]
fn the_schema_is_current_and_fits_the_shipped_policies() {
    let current = format!("{}\n", serde_json::to_string_pretty(&Policies::json_schema()).unwrap());
    if std::env::var_os("CLUEGATE_UPDATE").is_some() {
        std::fs::write(SCHEMA, &current).unwrap();
    }
    let published = std::fs::read_to_string(SCHEMA).unwrap();
    assert_eq!(
        published, current,
        "run the tests of this crate with CLUEGATE_UPDATE=1 and commit the schema"
    );
    let validator = jsonschema::validator_for(&Policies::json_schema()).unwrap();
    for text in [Policies::with_defaults_toml(), Policies::demo_toml()] {
        let value = serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
        assert!(validator.is_valid(&value));
    }
    let unknown = serde_json::json!({"tenant": {"t": {"prevews": []}}});
    assert!(!validator.is_valid(&unknown));
}

#[test]
fn unknown_keys_are_refused_with_the_nearest() {
    assert_eq!(
        refused("[tenant.t]\nprevews = []"),
        "policy.toml: unknown key `tenant.t.prevews` (did you mean `previews`?); known here: extends, constitution, rules, \
         mode, on_error, tries, after_tries, regenerate, prompt_check, previews, preview_judgment, \
         preview_thresholds, placeholder, provenance, log_prompts, redact, action, thresholds, parameter, limits, client, \
         canary, retention, quota, prefilter, priority, suspended, model"
    );
    assert!(refused("[tenants.t]").contains("unknown key `tenants` (did you mean `tenant`?)"));
    assert!(
        refused("[tenant.t.redact]\nmetod = \"blur\"")
            .contains("`tenant.t.redact.metod` (did you mean `method`?)")
    );
    let severity = refused("[tenant.t.action.severity]\nhihg = \"block\"");
    assert!(severity.contains("`tenant.t.action.severity.hihg` (did you mean `high`?)"), "{severity}");
    let far = refused("[tenant.t]\nzzz = 1");
    assert!(far.contains("unknown key `tenant.t.zzz`; known here"), "{far}");
}

#[test]
fn values_are_checked() {
    for (text, message) in [
        ("tries = 0", "`tenant.t.tries` must be from 1 to 100, not 0"),
        ("previews = [0]", "`tenant.t.previews` must be steps from 1, not 0"),
        (
            "previews = [1.0]",
            "`tenant.t.previews` must be fractions between 0 and 1 or whole steps from 1, not 1",
        ),
        ("[tenant.t.redact]\ngrow = nan", "`tenant.t.redact.grow` must be from 0 to 2, not NaN"),
        ("[tenant.t.thresholds]\nalpha1 = 1.5", "`tenant.t.thresholds.alpha1` must be from 0 to 1, not 1.5"),
        (
            "[tenant.t.limits]\njudge_deadline_ms = 0",
            "`tenant.t.limits.judge_deadline_ms` must be 1 or more, not 0",
        ),
        ("constitution = \"\"", "`tenant.t.constitution` must be a shipped name or a path, not empty"),
    ] {
        assert_eq!(refused(&format!("[tenant.t]\n{text}")), format!("policy.toml: {message}"));
    }
    assert_eq!(refused(""), "policy.toml: no tenant; add a table [tenant.NAME]");
    assert!(
        refused("[tenant.t]\ntries = \"three\"").contains("line 2"),
        "{}",
        refused("[tenant.t]\ntries = \"three\"")
    );
}

#[test]
fn failing_open_must_be_named() {
    let release = refused("[tenant.t]\non_error = \"release\"");
    assert!(release.contains("release-unjudged"), "{release}");
    let named = Policies::from_toml("[tenant.t]\non_error = \"release-unjudged\"", "policy.toml").unwrap();
    assert_eq!(named.get("t").unwrap().on_error, OnError::ReleaseUnjudged);
    assert_eq!(Policies::shipped_default().unwrap().get("default").unwrap().on_error, OnError::Block);
}

#[test]
fn a_rule_beats_its_severity_and_severity_beats_the_default() {
    let text = "[tenant.t.action]\ndefault = \"hold\"\n[tenant.t.action.severity]\nlow = \"allow\"\n\
                [tenant.t.action.rule]\nsmoking = \"redact\"";
    let policies = Policies::from_toml(text, "policy.toml").unwrap();
    let actions = &policies.get("t").unwrap().actions;
    assert_eq!(actions.of("smoking", Severity::Low), Action::Redact);
    assert_eq!(actions.of("drinking", Severity::Low), Action::Allow);
    assert_eq!(actions.of("drinking", Severity::High), Action::Hold);
    assert!(Action::Block > Action::Hold && Action::Hold > Action::Regenerate);
    assert!(Action::Regenerate > Action::Redact && Action::Redact > Action::Allow);
}

#[test]
fn previews_are_due_at_fractions_and_steps_but_never_at_the_end() {
    let policies = Policies::from_toml("[tenant.t]\npreviews = [0.4, 0.99, 3, 50]", "policy.toml").unwrap();
    let schedule = &policies.get("t").unwrap().previews;
    let due = |total| (0..=total).filter(|step| schedule.is_due(*step, total)).collect::<Vec<_>>();
    assert_eq!(due(20), [3, 8, 19]);
    assert_eq!(due(2), [1]);
    assert_eq!(due(1), Vec::<u32>::new());
    assert_eq!(due(0), Vec::<u32>::new());
}

#[test]
fn paths_are_relative_to_the_policy_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    std::fs::write(
        &path,
        "[tenant.t]\nconstitution = \"rules/own.toml\"\n[tenant.u]\nconstitution = \"scene\"",
    )
    .unwrap();
    let policies = Policies::load(&path).unwrap();
    let named = ConstitutionSource::Named("rules/own.toml".to_owned());
    assert_eq!(policies.get("t").unwrap().constitution, named);
    let unreadable = policies.constitution(policies.get("t").unwrap()).unwrap_err().to_string();
    let path = folder.path().join("rules/own.toml").display().to_string();
    assert!(unreadable.contains(&path), "{unreadable}");
    assert_eq!(policies.get("u").unwrap().constitution, ConstitutionSource::Shipped("scene".to_owned()));
    let missing = Policies::load(folder.path().join("none.toml")).unwrap_err().to_string();
    assert!(missing.contains("cannot read the policy file") && missing.contains("none.toml"), "{missing}");
}

#[test]
fn the_constitution_of_a_policy_is_checked_without_a_judge() {
    let load = |text: &str| {
        let policies = Policies::from_toml(text, "test.toml").unwrap();
        policies.constitution(policies.require("a").unwrap())
    };
    let own = load("[tenant.a]\nrules = [\"armed\"]\nthresholds.beta = 0.5\n").unwrap();
    assert_eq!(own.rules().len(), 1);
    let error = load("[tenant.a]\nrules = [\"armde\"]\n").unwrap_err().to_string();
    assert!(error.contains("`armde`") && error.contains("`armed`"), "{error}");
    let error = load("[tenant.a]\nconstitution = \"nowhere.toml\"\n").unwrap_err().to_string();
    assert!(error.contains("nowhere.toml"), "{error}");
    let policies = Policies::from_toml("[tenant.abc]\n", "test.toml").unwrap();
    let error = policies.require("abd").unwrap_err().to_string();
    assert!(error.contains("did you mean `abc`"), "{error}");
}

#[test]
fn a_tenant_sets_parameters_within_their_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "name = \"own\"\n[[rule]]\nid = \"crowd\"\ntext = \"More than {people} people.\"\nobjectiveness = 10\n\
                 severity = \"low\"\n[rule.parameter.people]\nkind = \"count\"\nvalue = 5\nmin = 2\nmax = 50\n\
                 [[rule.precondition]]\nany = [{ statement = \"more than {people} people are visible\" }]\n\
                 [[rule]]\nid = \"dog\"\ntext = \"A dog.\"\nobjectiveness = 10\nseverity = \"low\"\n\
                 [[rule.precondition]]\nany = [{ statement = \"a dog is visible\" }]\n";
    std::fs::write(folder.path().join("own.toml"), rules).unwrap();
    let load = |more: &str| {
        let text = format!("[tenant.t]\nconstitution = \"own.toml\"\n{more}");
        let path = folder.path().join("policy.toml");
        std::fs::write(&path, text).unwrap();
        let policies = Policies::load(&path).unwrap();
        policies.constitution(policies.get("t").unwrap()).map_err(|e| e.to_string())
    };
    let own = load("").unwrap();
    for written in ["\"crowd.people\" = 20", "crowd.people = 20"] {
        let set = load(&format!("[tenant.t.parameter]\n{written}")).unwrap();
        assert_eq!(set.rule("crowd").unwrap().text, "More than 20 people.");
        assert_eq!(
            set.rule("crowd").unwrap().preconditions[0].any[0].text,
            "more than 20 people are visible"
        );
        assert_ne!(set.revision(), own.revision());
    }
    let one = load("rules = [\"crowd\"]\n[tenant.t.parameter]\ncrowd.people = 20").unwrap();
    assert_eq!((one.rules().len(), one.rules()[0].text.as_str()), (1, "More than 20 people."));
    let other = load("rules = [\"dog\"]\n[tenant.t.parameter]\ncrowd.people = 20").unwrap();
    assert_eq!(other.rules().len(), 1);
    let outside = load("[tenant.t.parameter]\ncrowd.people = 60").unwrap_err();
    assert!(outside.contains("`crowd.people` between 2 and 50") && outside.contains("got 60"), "{outside}");
    let misspelt = load("rules = [\"dog\"]\n[tenant.t.parameter]\ncrowd.poeple = 20").unwrap_err();
    assert!(misspelt.contains("did you mean `crowd.people`?"), "{misspelt}");
    let form = refused("[tenant.t.parameter]\nangle = 60");
    assert_eq!(
        form,
        "policy.toml: `tenant.t.parameter` must be of the form \"rule.parameter\" = value, not angle"
    );
    let kind = refused("[tenant.t.parameter]\n\"a.b\" = \"many\"");
    assert!(kind.contains("expected a number, as in"), "{kind}");
}
