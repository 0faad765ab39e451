//! The statements of one picture: ours, and four ways in Python.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use cluegate::constitution::Constitution;
use cluegate::perception::Picture;
use image::RgbImage;

use super::Setting;
use super::tokens::Counter;
use crate::ours::Questions;
use crate::page::{Page, doing};
use crate::pictures::{self, variant};
use crate::plot;
use crate::reference::{self, StatementsInput, StatementsOutput};
use crate::stats::Times;
use crate::streams::millis;
use crate::table::{Table, ms, times};

/// As many as the table of the design has.
const STATEMENTS: usize = 24;
const PICTURES: usize = 10;

/// Tokens of a block of vLLM's cache on the CPU, unless somebody says otherwise. Only whole blocks are shared, and the
/// prefix of these questions does not fill one.
const VLLM_DEFAULT_BLOCK: usize = 128;

/// What the last line needs of this part; medians in milliseconds.
pub(super) struct Measured {
    pub(super) ours_ms: f64,
    pub(super) loop_ms: f64,
    pub(super) shared_ms: f64,
    /// Of vLLM as it comes.
    pub(super) vllm_ms: Option<f64>,
    pub(super) marginal_ratio: f64,
}

/// Ours: times of all statements and of one, each about a picture never seen before.
#[derive(Default)]
struct Rounds {
    all: Vec<f64>,
    single: Vec<f64>,
    /// Of the pictures themselves, by picture and statement.
    scores: Vec<Vec<f64>>,
}

/// A program in Python and what it answered.
struct Other {
    name: &'static str,
    times: Times,
    difference: f64,
    output: StatementsOutput,
}

impl Rounds {
    /// Asks about a variant of each picture; the first round is about the pictures themselves.
    fn ask(
        &mut self,
        questions: &Questions,
        pictures: &[RgbImage],
        statements: &[String],
    ) -> anyhow::Result<()> {
        let first = self.scores.is_empty();
        let run = self.all.len() / PICTURES;
        for picture in pictures {
            let whole = Picture::new(variant(picture, 2 * run));
            let begin = Instant::now();
            let scores = questions.score(whole, statements)?;
            self.all.push(millis(begin.elapsed()));
            if first {
                self.scores.push(scores);
            }
            let once = Picture::new(variant(picture, 2 * run + 1));
            let begin = Instant::now();
            questions.score(once, &statements[..1])?;
            self.single.push(millis(begin.elapsed()));
        }
        Ok(())
    }
}

/// Measures all ways, ours again between the others, so that all have the same weather.
pub(super) fn measure(setting: &Setting<'_>, page: &mut Page) -> anyhow::Result<Measured> {
    let arguments = setting.arguments;
    let statements = scene_statements()?;
    let mut all = setting.scenes.osbench(PICTURES + 2)?;
    let warm_up = all.split_off(PICTURES);
    let pictures = all;
    let folder = setting.folder.join("statements");
    let paths = pictures::write(&folder, &pictures::pngs(&pictures)?)?;
    let questions = Questions::open(&arguments.common.suite)?;
    let judge = model_folder(&arguments.common.suite, "judge")?;
    let input = StatementsInput {
        judge: judge.clone(),
        beginning: questions.beginning(),
        statements: statements.iter().map(|statement| questions.ending(statement)).collect(),
        pictures: paths,
        repeat: 1,
        block_size: None,
    };
    for picture in warm_up {
        questions.score(Picture::new(picture), &statements)?;
    }
    let mut rounds = Rounds::default();
    rounds.ask(&questions, &pictures, &statements)?;
    let mut others = Vec::new();
    let program = |name: &str| arguments.reference.join(name);
    let ways = [
        ("transformers, one query a forward", Some("loop"), None),
        ("transformers, one batch of whole queries", Some("batch"), None),
        ("PyTorch by hand, prefix shared", Some("shared"), None),
        ("vLLM on the CPU, prefix caching on, as it comes", None, Some(VLLM_DEFAULT_BLOCK)),
        ("vLLM on the CPU, in blocks that fit the prefix", None, None),
    ];
    for (name, method, block_size) in ways {
        let (python, file) = match (method, &arguments.vllm_python) {
            (Some(_), _) => (&arguments.reference_python, "statements.py"),
            (None, Some(python)) => (python, "vllm_statements.py"),
            (None, None) => continue,
        };
        doing(name);
        let input = StatementsInput { block_size, ..input.clone() };
        let output: StatementsOutput = reference::run(python, &program(file), method, &input, &folder)?;
        let difference = largest_difference(&rounds.scores, &output.scores)
            .with_context(|| format!("the scores of {name}"))?;
        others.push(Other { name, times: output.ms.iter().flatten().copied().collect(), difference, output });
        rounds.ask(&questions, &pictures, &statements)?;
    }
    let counter = Counter::open(&judge)?;
    let shared = counter.picture() + counter.text(&input.beginning);
    let endings = input.statements.iter().map(|ending| counter.text(ending)).sum();
    tell(page, &rounds, &others, (shared, endings))
}

/// Twenty statements of the constitution `scene`, and four more of its world.
pub(crate) fn scene_statements() -> anyhow::Result<Vec<String>> {
    let scene = Constitution::shipped("scene")?;
    let mut statements: Vec<String> = Vec::new();
    let links = scene.rules().iter().flat_map(|rule| &rule.preconditions);
    let more = ["a dog is visible", "a cat is visible", "a knife is visible", "fire is visible"];
    let texts = links.flat_map(|link| &link.any).map(|asked| asked.text.as_str()).chain(more);
    for text in texts {
        if !statements.iter().any(|known| known == text) {
            statements.push(text.to_owned());
        }
    }
    statements.truncate(STATEMENTS);
    ensure!(statements.len() == STATEMENTS, "expected {STATEMENTS} statements, found {}", statements.len());
    Ok(statements)
}

/// The folder of a model, such as `judge`, as the models file names it.
pub(crate) fn model_folder(suite: &Path, part: &str) -> anyhow::Result<std::path::PathBuf> {
    let file = if suite.is_dir() { suite.join(cluegate::models::MODELS_FILE) } else { suite.to_owned() };
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let models: toml::Table = toml::from_str(&text)?;
    let folder = models.get(part).and_then(|section| section.get("folder")).and_then(toml::Value::as_str);
    let folder = folder.with_context(|| format!("{} names no {part}", file.display()))?;
    Ok(file.parent().unwrap_or(Path::new(".")).join(folder))
}

/// The largest difference of two scores of the same question.
fn largest_difference(ours: &[Vec<f64>], theirs: &[Vec<f64>]) -> anyhow::Result<f64> {
    let shape = |scores: &[Vec<f64>]| scores.iter().map(Vec::len).collect::<Vec<_>>();
    let (expected, came) = (shape(ours), shape(theirs));
    ensure!(expected == came, "expected as many scores as {expected:?} by picture, got {came:?}");
    let pairs = ours.iter().flatten().zip(theirs.iter().flatten());
    // A score that is no number differs as much as can be.
    Ok(pairs.map(|(a, b)| (a - b).abs()).map(|d| if d.is_nan() { 1.0 } else { d }).fold(0.0, f64::max))
}

/// `shared` tokens are those of a picture and the beginning, `endings` those of all endings.
fn tell(
    page: &mut Page,
    rounds: &Rounds,
    others: &[Other],
    (shared, endings): (usize, usize),
) -> anyhow::Result<Measured> {
    let ours = Times::new(rounds.all.clone());
    let single = Times::new(rounds.single.clone());
    page.heading(&format!("{STATEMENTS} statements about one picture"))?;
    page.text(&format!(
        "{PICTURES} pictures of 224 px, each new to the engine: nothing is remembered. A picture and the beginning of \
         the question are {} tokens, the {STATEMENTS} endings together {}: {} tokens one query at a time, {} shared.",
        shared,
        endings,
        STATEMENTS * shared + endings,
        shared + endings,
    ))?;
    let head =
        ["", "median ms", "fastest ms", "times ours", "largest difference in score", "threads", "peak MB"];
    let mut table = Table::new(&head);
    let threads = std::env::var("RAYON_NUM_THREADS").unwrap_or_default();
    let peak = format!("{:.0}", crate::machine::peak_mb()?);
    table.row("cluegate", [ms(ours.median()), ms(ours.min()), times(1.0), String::new(), threads, peak]);
    let mut bars = vec![("cluegate".to_owned(), ours.median())];
    for other in others {
        let median = other.times.median();
        let cells = [
            ms(median),
            ms(other.times.min()),
            times(median / ours.median()),
            format!("{:.1e}", other.difference),
            other.output.threads.to_string(),
            format!("{:.0}", other.output.peak_rss_mb),
        ];
        table.row(other.name, cells);
        bars.push((other.name.to_owned(), median));
    }
    page.table(table)?;
    page.plot("Median time for all statements of a picture; shorter is better.", plot::bars("ms", &bars));
    for other in others.iter().filter(|other| !other.name.contains("batch") && !other.name.contains("hand")) {
        page.text(&format!("{}: {}.", other.name, reference::versions(&other.output.versions)))?;
    }
    let marginal = (ours.median() - single.median()) / (STATEMENTS - 1) as f64;
    let mut table = Table::new(&["cluegate", "ms"]);
    table.row("one query about a new picture", [ms(single.median())]);
    table.row(format!("{STATEMENTS} queries about a new picture"), [ms(ours.median())]);
    table.row("one statement more", [ms(marginal)]);
    table.row("as a share of a single query", [format!("{:.3}", marginal / single.median())]);
    page.table(table)?;
    let median = |index: usize| others.get(index).map(|other| other.times.median());
    Ok(Measured {
        ours_ms: ours.median(),
        loop_ms: median(0).unwrap_or(f64::NAN),
        shared_ms: median(2).unwrap_or(f64::NAN),
        vllm_ms: median(3),
        marginal_ratio: marginal / single.median(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn there_are_as_many_distinct_statements_as_said() {
        let statements = scene_statements().unwrap();
        assert_eq!(statements.iter().collect::<HashSet<_>>().len(), STATEMENTS);
        assert_eq!(statements.last().unwrap(), "fire is visible");
    }

    #[test]
    fn scores_are_compared_question_by_question() {
        let ours = [vec![0.1, 0.9], vec![0.5, 0.5]];
        let difference = largest_difference(&ours, &[vec![0.1, 0.8], vec![0.5, 0.51]]).unwrap();
        assert!((difference - 0.1).abs() < 1e-12);
        assert!(
            (largest_difference(&ours, &[vec![0.1, f64::NAN], vec![0.5, 0.5]]).unwrap() - 1.0).abs() < 1e-12
        );
        assert!(largest_difference(&ours, &[vec![0.1, 0.8]]).is_err());
        assert!(largest_difference(&ours, &[vec![0.1], vec![0.5, 0.5]]).is_err());
    }
}
