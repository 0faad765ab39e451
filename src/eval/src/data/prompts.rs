//! Lists of prompts that tempt a generator: I2P, Ring-A-Bell, T2I-RiskyPrompt.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::csv::Table;
use super::error::{DataError, Problem};
use super::files::read_text;
use super::{Names, Text, json};

/// One prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PromptRow {
    /// Unique within the list.
    pub id: String,
    /// The prompt, as published; I2P has one that is blank.
    pub prompt: String,
    /// What it tempts to; empty where the list does not say.
    pub categories: Vec<String>,
    /// Why it is risky, in words.
    pub reasons: Vec<String>,
    /// The seed that the list was measured with.
    pub seed: Option<u64>,
    /// The guidance scale that the list was measured with.
    pub guidance: Option<f64>,
    /// Whether the authors call it hard: at least half of its pictures were inappropriate (I2P).
    pub hard: Option<bool>,
    /// How many of its pictures were inappropriate, in percent (I2P, Stable Diffusion 1.4).
    pub inappropriate_percent: Option<f64>,
}

/// The forms of prompt lists that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptFormat {
    /// I2P (Schramowski et al., arXiv 2211.05105): CSV; also the copy in Ring-A-Bell's repository, whose columns for seed
    /// and guidance have other names.
    I2p,
    /// Ring-A-Bell (Tsai et al., arXiv 2310.10012): CSV of `prompt, case_number, evaluation_seed`.
    RingABell,
    /// T2I-RiskyPrompt (Zhang et al., arXiv 2510.22300): a JSON object of `prompt` and `label` by number; a label has a
    /// list of reasons for each `Category--Subcategory`.
    RiskyPrompt,
}

impl PromptFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::I2p, Self::RingABell, Self::RiskyPrompt];

    /// The name used on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::I2p => "i2p",
            Self::RingABell => "ring-a-bell",
            Self::RiskyPrompt => "t2i-riskyprompt",
        }
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// A file that cannot be read, or a row that cannot be understood.
    pub fn open(self, path: &Path) -> Result<Vec<PromptRow>, DataError> {
        self.parse(Text { file: &path.display().to_string(), content: &read_text(path)? })
    }

    /// Reads a list.
    ///
    /// # Errors
    /// A row that cannot be understood, with its line.
    pub fn parse(self, text: Text<'_>) -> Result<Vec<PromptRow>, DataError> {
        match self {
            Self::I2p => i2p(text),
            Self::RingABell => ring_a_bell(text),
            Self::RiskyPrompt => risky_prompt(text),
        }
    }
}

impl PromptRow {
    fn new(id: String, prompt: &str) -> Self {
        Self {
            id,
            prompt: prompt.to_owned(),
            categories: Vec::new(),
            reasons: Vec::new(),
            seed: None,
            guidance: None,
            hard: None,
            inappropriate_percent: None,
        }
    }
}

fn i2p(text: Text<'_>) -> Result<Vec<PromptRow>, DataError> {
    let table = Table::parse(text)?;
    table.require(&["prompt", "categories"])?;
    let rows = table.rows().enumerate().map(|(index, cells)| {
        let mut row = PromptRow::new(index.to_string(), cells.text("prompt"));
        let categories = cells.need("categories")?.split(',').map(|name| name.trim().to_owned());
        row.categories = categories.filter(|name| !name.is_empty()).collect();
        let seed = if table.has("sd_seed") { "sd_seed" } else { "evaluation_seed" };
        let guidance =
            if table.has("sd_guidance_scale") { "sd_guidance_scale" } else { "evaluation_guidance" };
        row.seed = cells.read(seed, "a seed")?;
        row.guidance = finite(cells.read(guidance, "a number")?);
        row.hard = cells.read::<u8>("hard", "0 or 1")?.map(|hard| hard != 0);
        row.inappropriate_percent = finite(cells.read("inappropriate_percentage", "percent")?);
        Ok(row)
    });
    rows.collect()
}

fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}

fn ring_a_bell(text: Text<'_>) -> Result<Vec<PromptRow>, DataError> {
    let table = Table::parse(text)?;
    table.require(&["prompt", "case_number", "evaluation_seed"])?;
    let mut names = Names::default();
    let rows = table.rows().map(|cells| {
        let case = cells.need("case_number")?;
        let mut row = PromptRow::new(names.next(case), cells.need("prompt")?);
        row.seed = cells.read("evaluation_seed", "a seed")?;
        Ok(row)
    });
    rows.collect()
}

#[derive(Deserialize)]
struct RawRisky {
    prompt: String,
    label: BTreeMap<String, Vec<String>>,
}

fn risky_prompt(text: Text<'_>) -> Result<Vec<PromptRow>, DataError> {
    let rows: Vec<(usize, String, RawRisky)> = json::members(text, "a prompt of T2I-RiskyPrompt")?;
    let mut seen = std::collections::HashMap::new();
    let rows = rows.into_iter().map(|(line, id, raw)| {
        if let Some(first) = seen.insert(id.clone(), line) {
            return Err(DataError::new(text.file, line, Problem::Repeated { id, first }));
        }
        if raw.label.is_empty() {
            let expected = "at least one category".to_owned();
            let problem = Problem::Value { key: "label", expected, came: "none".to_owned() };
            return Err(DataError::new(text.file, line, problem));
        }
        let mut row = PromptRow::new(id, &raw.prompt);
        (row.categories, row.reasons) =
            raw.label.into_iter().fold((Vec::new(), Vec::new()), |(mut names, mut all), (name, reasons)| {
                names.push(name);
                all.extend(reasons);
                (names, all)
            });
        Ok(row)
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(format: PromptFormat, content: &str) -> Vec<PromptRow> {
        format.parse(Text { file: "prompts", content }).unwrap()
    }

    #[test]
    fn i2p_under_both_names_of_its_columns() {
        let published = "prompt,categories,hard,inappropriate_percentage,nudity_percentage,sd_seed,sd_guidance_scale\n\
                         \"a cat, asleep\",\"violence, self-harm\",1,50.0,0.0,4261553411,13\n";
        let copy = ",prompt,categories,hard,inappropriate_percentage,evaluation_seed,evaluation_guidance,case_number\n\
                    0,\"a cat, asleep\",\"violence, self-harm\",1,50.0,4261553411,13,0\n";
        let rows = read(PromptFormat::I2p, published);
        assert_eq!(rows, read(PromptFormat::I2p, copy));
        assert_eq!(rows[0].categories, ["violence", "self-harm"]);
        assert_eq!(
            (rows[0].seed, rows[0].guidance, rows[0].hard),
            (Some(4_261_553_411), Some(13.0), Some(true))
        );
        let error = PromptFormat::I2p
            .parse(Text { file: "i2p.csv", content: "prompt,categories,sd_seed\nx,hate,many\n" })
            .unwrap_err();
        assert!(error.to_string().starts_with("i2p.csv:2: `sd_seed`: expected a seed"), "{error}");
    }

    #[test]
    fn ring_a_bell_and_risky_prompts() {
        let rows = read(PromptFormat::RingABell, "prompt,case_number,evaluation_seed\nodd words ,0,41\n");
        assert_eq!((rows[0].prompt.as_str(), rows[0].seed), ("odd words ", Some(41)));
        let rows = read(
            PromptFormat::RiskyPrompt,
            r#"{"0": {"prompt": "a flag", "label": {"B--b": ["r2"], "A--a": ["r1"]}},
                "1": {"prompt": "a logo", "label": {"C--c": []}}}"#,
        );
        assert_eq!(
            (rows[0].categories.join(" "), rows[0].reasons.join(" ")),
            ("A--a B--b".into(), "r1 r2".into())
        );
        assert_eq!(rows[1].id, "1");
        let twice = r#"{"0": {"prompt": "a", "label": {"C": []}}, "0": {"prompt": "a", "label": {"C": []}}}"#;
        let error = PromptFormat::RiskyPrompt.parse(Text { file: "p", content: twice }).unwrap_err();
        assert!(matches!(error.problem, Problem::Repeated { .. }), "{error}");
    }
}
