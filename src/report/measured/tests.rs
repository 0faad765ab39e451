#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

use cluegate_eval::costs::{CostLog, Machine};
use cluegate_eval::data::DataSet;
use cluegate_eval::metrics::Bootstrap;
use cluegate_eval::outcome::{Judgment, Outcome};
use cluegate_eval::record::{ConstitutionRecord, DataRecord, MethodRecord, RowRecord, RunRecord, write};
use cluegate_eval::results::{ResultKey, Results};
use cluegate_eval::scenes::{SceneOptions, SceneSet};
use cluegate_judge::{
    DecidedBy, FoundRegion, Models, Outcome as RuleOutcome, PreconditionEvidence, RuleEvidence,
    StatementEvidence,
};
use cluegate_mini::{RULE_IDS, Style, World};

use super::*;

fn set() -> SceneSet {
    SceneSet::pairs(World::load().unwrap(), SceneOptions { seed: 3, per_rule: 1, style: Style::World })
}

fn statement(score: f64) -> StatementEvidence {
    let prior = 0.4;
    StatementEvidence {
        text: "a <b>person</b> is \"visible\"".to_owned(),
        score: Some(score),
        score_without_image: prior,
        alpha1: -0.3 * prior,
        alpha2: 0.8 * (1.0 - prior),
        crop: false,
        region: vec![FoundRegion {
            word: "person".to_owned(),
            confidence: 0.5,
            left: 10.0,
            top: 20.0,
            right: 90.0,
            bottom: 100.0,
            area_share: 0.1,
        }],
        score_whole_picture: None,
        score_region_removed: Some(0.3),
        rating: Some(0.75),
        decided_by: DecidedBy::Reasoning,
        holds: Some(true),
        thought: Some("I see </script><script>alert(1)</script>".to_owned()),
        rationale: None,
    }
}

/// A judgment that names the right rules on all rows but every fourth, where it names the next rule.
fn judgment(set: &dyn DataSet, at: usize) -> Outcome {
    let is = set.rows()[at].truth.rules().unwrap();
    let shift = usize::from(at.is_multiple_of(4));
    let violated: Vec<String> = (0..RULE_IDS.len())
        .filter(|rule| is.contains(RULE_IDS[*rule]))
        .map(|rule| RULE_IDS[(rule + shift) % RULE_IDS.len()].to_owned())
        .collect();
    let evidence = RULE_IDS.iter().map(|id| RuleEvidence {
        id: (*id).to_owned(),
        relevance: Some(if violated.contains(&(*id).to_owned()) { 0.3 } else { 0.1 }),
        relevance_threshold: 0.2,
        outcome: if violated.contains(&(*id).to_owned()) {
            RuleOutcome::Violated
        } else {
            RuleOutcome::Irrelevant
        },
        projection: None,
        margin: None,
        preconditions: vec![PreconditionEvidence { satisfied: Some(true), statements: vec![statement(0.7)] }],
        unless: Vec::new(),
    });
    Outcome::Judged(Judgment {
        flagged: !violated.is_empty(),
        evidence: evidence.collect(),
        violated: Some(violated),
        score: None,
        passes: 7,
        words: None,
    })
}

fn simple(flagged: bool, score: f64) -> Outcome {
    let words = Some("No <img src=x>".to_owned());
    Outcome::Judged(Judgment {
        flagged,
        violated: None,
        score: Some(score),
        passes: 1,
        words,
        evidence: Vec::new(),
    })
}

/// A run of three methods in `folder`, without a model.
fn run(folder: &Path, set: &SceneSet) {
    let mut results = Results::open(folder).unwrap();
    let machine = Machine { started: "2026-01-02T03:04:05Z".to_owned(), machine: "a machine".to_owned() };
    let mut costs = CostLog::open(folder, machine).unwrap();
    let names = ["clue", "no-debiasing", "clip-pair", "clue beta=0.2", "clue beta=0.6"];
    let mut rows = Vec::new();
    for (index, row) in set.rows().iter().enumerate() {
        let hash = set.picture(index).unwrap().hash().to_hex();
        for name in names {
            let picture = hash.clone();
            let key = ResultKey { method: name.to_owned(), revision: "r".to_owned(), picture, policy: None };
            let is = row.truth.is_unsafe();
            let outcome = match name {
                "clip-pair" => simple(index % 3 == 0, if is { 0.8 - 0.02 * index as f64 } else { 0.4 }),
                "no-debiasing" => simple(true, 0.5),
                _ => judgment(set, index),
            };
            results.add(key, outcome).unwrap();
        }
        costs.add("clue", "r", 12.0 + index as f64).unwrap();
        rows.push(RowRecord { index, row: row.clone(), hash: Some(hash) });
    }
    let method = |name: &str| MethodRecord {
        name: name.to_owned(),
        revision: "r".to_owned(),
        reads_policy: false,
        failures: Vec::new(),
    };
    let record = RunRecord {
        version: "0.0.0".to_owned(),
        command: ["cluegate", "eval", "run", "--data", "pairs <&>"].map(str::to_owned).to_vec(),
        data: DataRecord {
            name: "mini-pairs".to_owned(),
            revision: set.revision(),
            rows: set.rows().len(),
            looked_at: rows.len(),
            set: "pairs".to_owned(),
            pictures: None,
            scenes: None,
        },
        constitution: ConstitutionRecord {
            name: "scene".to_owned(),
            revision: "rev".to_owned(),
            rules: RULE_IDS.iter().map(|id| ((*id).to_owned(), format!("No {id}."))).collect(),
        },
        models: Models { relevance: "e".to_owned(), detector: "d".to_owned(), judge: "j".to_owned() },
        bootstrap: Bootstrap { resamples: 60, seed: 1 },
        rules: RULE_IDS.map(str::to_owned).to_vec(),
        methods: names.map(method).to_vec(),
    };
    write(folder, &record, &rows).unwrap();
}

fn rendered(folder: &Path, set: Option<&dyn DataSet>, errors: usize) -> String {
    let kept = Kept::read(folder).unwrap();
    let (report, costs) = (RunReport::of(&kept), Costs::read(folder).unwrap());
    render(&Measured { kept: &kept, report: &report, costs: &costs, set, without: None }, errors).unwrap()
}

/// The page without the numbers of its plots and the bytes of its pictures: what stands on it, in order.
fn structure(html: &str) -> String {
    let mut lines = Vec::new();
    for part in html.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap_or((part, ""));
        let name = tag.split_whitespace().next().unwrap_or_default();
        let id = tag.split("id=\"").nth(1).and_then(|rest| rest.split('"').next());
        let text = text.trim();
        let shown =
            ["title", "h1", "h2", "h3", "summary", "caption", "th", "figcaption", "dt"].contains(&name);
        match (name, id) {
            ("section" | "nav", id) => lines.push(format!("{name} {}", id.unwrap_or_default())),
            _ if shown && !text.is_empty() => lines.push(format!("  {name}: {text}")),
            _ => {}
        }
    }
    lines.join("\n")
}

#[test]
fn the_page_has_every_part_and_the_table_every_figure() {
    let (folder, set) = (tempfile::tempdir().unwrap(), set());
    run(folder.path(), &set);
    let html = rendered(folder.path(), Some(&set), 3);
    insta::assert_snapshot!("measured-structure", structure(&html));
    let kept = Kept::read(folder.path()).unwrap();
    let table = crate::cli::eval_table(&RunReport::of(&kept), &Costs::read(folder.path()).unwrap());
    insta::assert_snapshot!("measured-table", table);
}

#[test]
fn nothing_is_fetched_nothing_runs_and_texts_stay_texts() {
    let (folder, set) = (tempfile::tempdir().unwrap(), set());
    run(folder.path(), &set);
    let html = rendered(folder.path(), Some(&set), 4);
    for forbidden in
        ["<script", "http://", "https://", " style=", "onload", "<link", "url(", "<b>", "<img src=x", "NaN"]
    {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert!(html.contains("pairs &lt;&amp;&gt;") && html.contains("I see &lt;&#x2f;script&gt;"));
    // The policy allows exactly the style that is there.
    let style = html.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    let hash = base64::engine::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        <sha2::Sha256 as sha2::Digest>::digest(style.as_bytes()),
    );
    let hash = hash.replace('+', "&#x2b;").replace('=', "&#x3d;").replace('/', "&#x2f;");
    let stated = html.split("style-src '").nth(1).or_else(|| html.split("style-src &#x27;").nth(1)).unwrap();
    let stated = stated
        .split('\'')
        .next()
        .unwrap()
        .replace('+', "&#x2b;")
        .replace('=', "&#x3d;")
        .replace('/', "&#x2f;");
    assert_eq!(stated.trim_start_matches("sha256-"), hash);
    // Every picture has words, every plot a name, every heading of a section is named by it.
    assert_eq!(html.matches("<img alt=\"the picture ").count(), html.matches("<img").count());
    assert_eq!(html.matches("role=\"img\" aria-label=\"").count(), html.matches("role=\"img\"").count());
    assert_eq!(html.matches("<section id").count(), html.matches("aria-labelledby").count());
}

#[test]
fn the_same_run_gives_the_same_bytes_and_pictures_are_bounded() {
    let (folder, set) = (tempfile::tempdir().unwrap(), set());
    run(folder.path(), &set);
    let first = rendered(folder.path(), Some(&set), 200);
    assert_eq!(rendered(folder.path(), Some(&set), 200), first);
    let pictures: usize =
        first.split("src=\"data:").skip(1).map(|part| part.split('"').next().unwrap().len()).sum();
    assert!(pictures > 10_000 && pictures <= errors::MAX_BYTES, "{pictures}");
    let without = rendered(folder.path(), None, 5);
    assert!(!without.contains("<img") && without.contains("the picture is not here"));
    // Results that are cut short are counted as far as they go.
    let path = folder.path().join("results.jsonl");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_ne!(rendered(folder.path(), Some(&set), 5), first);
}
