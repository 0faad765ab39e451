//! How much a judge's scores change when its weights have fewer bits: every statement of a constitution about every
//! picture of a folder, in f32 and otherwise.
//!
//! ```text
//! cargo run --release -p cluegate-models --example score_change -- JUDGE PICTURES CONSTITUTION [OTHER]...
//! ```
//!
//! JUDGE is a checkpoint in Hugging Face layout, PICTURES a folder of images, CONSTITUTION a file of rules with
//! statements, each OTHER the same model in another form, such as an AWQ checkpoint. A score is the probability of Yes
//! against No; a decision is what CLUE makes of it beside the score without a picture: the statement is rejected,
//! satisfied, or open to the later stages (CLUE s 3.3, Algorithm 1, with its thresholds). Times are medians of one
//! picture with all statements, memory is that of the language model's embeddings and matrices.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use candle_core::DType;
use cluegate_models::{FileTree, LanguageModel, LoadOptions, Quantisation, load_judge};
use cluegate_perception::{Call, Picture, Prefix, Prompt, VisionLanguageModel};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const BEGINNING: &str = "Look only at what this image shows. Is the following statement true of it? Answer \"Yes\" or \"No\". Statement: ";

/// Every statement of a constitution once.
fn statements(path: &str) -> Outcome<Vec<String>> {
    fn collect(value: &toml::Value, found: &mut BTreeSet<String>) {
        match value {
            toml::Value::Table(table) => {
                found.extend(table.get("statement").and_then(|text| text.as_str()).map(str::to_owned));
                table.values().for_each(|value| collect(value, found));
            }
            toml::Value::Array(all) => all.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    collect(&toml::from_str(&std::fs::read_to_string(path)?)?, &mut found);
    if found.is_empty() {
        Err(format!("{path}: no statements").into())
    } else {
        Ok(found.into_iter().collect())
    }
}

fn pictures(folder: &str) -> Outcome<Vec<Picture>> {
    let mut paths = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>, std::io::Error>>()?;
    paths.retain(|path| image::ImageFormat::from_path(path).is_ok());
    paths.sort();
    paths.iter().map(|path| Ok(Picture::new(image::open(path)?.to_rgb8()))).collect()
}

/// The scores of all statements without a picture, then about each picture.
struct Scores {
    without: Vec<f64>,
    about: Vec<Vec<f64>>,
    /// Of the middle picture.
    milliseconds: f64,
    weights: usize,
}

impl Scores {
    fn of(model: &LanguageModel, pictures: &[Picture], statements: &[String]) -> Outcome<Self> {
        let ask = |picture: Option<&Picture>| -> Outcome<Vec<f64>> {
            let prompt = |statement: &String| {
                let prefix = Prefix { picture: picture.cloned(), text: BEGINNING.into() };
                Prompt::new(prefix, format!("{statement}."))
            };
            let prompts: Vec<Prompt> = statements.iter().map(prompt).collect();
            let answers = model.score(&prompts, &Call::default())?;
            Ok(answers.iter().map(|answer| answer.yes / (answer.yes + answer.no)).collect())
        };
        let without = ask(None)?;
        let (mut about, mut times) = (Vec::new(), Vec::new());
        for picture in pictures {
            let begin = Instant::now();
            about.push(ask(Some(picture))?);
            times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        let milliseconds = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
        Ok(Self { without, about, milliseconds, weights: model.weight_bytes() })
    }

    /// What is decided of each statement about each picture: -1 rejected, 1 satisfied, 0 open.
    fn decisions(&self) -> impl Iterator<Item = i8> + Clone {
        let decide = |(score, without): (&f64, &f64)| {
            let gain = score - without;
            i8::from(gain > 0.8 * (1.0 - without)) - i8::from(gain < -0.3 * without)
        };
        self.about.iter().flat_map(move |scores| scores.iter().zip(&self.without).map(decide))
    }

    /// A row of the table.
    fn row(&self, name: &str, reference: &Self) -> String {
        let pairs = || self.about.iter().flatten().zip(reference.about.iter().flatten());
        let changes: Vec<f64> = pairs().map(|(a, b)| (a - b).abs()).collect();
        let largest = changes.iter().copied().fold(0.0, f64::max);
        let mean = changes.iter().sum::<f64>() / changes.len() as f64;
        let sides = pairs().filter(|(a, b)| (**a > 0.5) != (**b > 0.5)).count();
        let decisions = self.decisions().zip(reference.decisions());
        let changed = decisions.clone().filter(|(a, b)| a != b).count();
        // Rejected and satisfied changed places, so that no later stage could have mended it.
        let reversed = decisions.filter(|(a, b)| a * b < 0).count();
        format!(
            "| {name} | {largest:.2e} | {mean:.2e} | {sides} | {changed} | {reversed} | {:.1} | {:.1} |",
            self.weights as f64 / 1e6,
            self.milliseconds
        )
    }
}

fn load(folder: &str, dtype: DType, quantisation: Option<Quantisation>) -> Outcome<LanguageModel> {
    Ok(load_judge(&FileTree::open(folder)?, &LoadOptions { dtype, quantisation, ..LoadOptions::default() })?)
}

#[allow(clippy::print_stdout)]
fn main() -> Outcome<()> {
    const USAGE: &str = "score_change JUDGE PICTURES CONSTITUTION [OTHER]...";
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [judge, folder, constitution, others @ ..] = arguments.as_slice() else { return Err(USAGE.into()) };
    let (pictures, statements) = (pictures(folder)?, statements(constitution)?);
    println!(
        "{} pictures, {} statements, {} threads\n",
        pictures.len(),
        statements.len(),
        rayon::current_num_threads()
    );
    println!(
        "| weights | largest change | mean change | crossed 0.5 | decisions changed | reversed | MB | ms |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let reference = Scores::of(&load(judge, DType::F32, None)?, &pictures, &statements)?;
    println!("{}", reference.row("f32", &reference));
    let mut forms: Vec<(String, &str, DType, Option<Quantisation>)> =
        vec![("bf16".to_owned(), judge, DType::BF16, None), ("f16".to_owned(), judge, DType::F16, None)];
    forms.extend(Quantisation::ALL.map(|kind| (kind.to_string(), judge.as_str(), DType::F32, Some(kind))));
    for other in others {
        let name = Path::new(other).file_name().map_or(other.as_str().into(), |name| name.to_string_lossy());
        forms.push((format!("{name}, unpacked"), other, DType::F32, None));
        forms.push((format!("{name}, as it is"), other, DType::F32, Some(Quantisation::Q8_0)));
    }
    for (name, folder, dtype, quantisation) in forms {
        let scores = Scores::of(&load(folder, dtype, quantisation)?, &pictures, &statements)?;
        println!("{}", scores.row(&name, &reference));
    }
    Ok(())
}
