//! Sets of models that go together, as data: `presets.toml`, compiled in.
//!
//! Sizes come from published counts of parameters. A download has `parameters x bytes of a stored parameter` (4 in f32,
//! 2 in bf16 and f16, about half a byte in 4 bits); tokenizers and configurations add a few megabytes. Memory has to hold
//! `parameters x bytes of a computed parameter` of all parts, and a quarter more for activations, caches and the program.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::error::{HubError, HubErrorKind, Result};
use crate::models_file::Pin;
use crate::names::{RepoId, Revision};
use crate::space::bytes;

/// A set of models.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Its name on the command line.
    pub name: String,
    /// What it is for, in a sentence.
    pub about: String,
    /// Precision that the memory is stated for.
    pub dtype: Dtype,
    /// The parts, in the order of the pipeline; none for the set that is compiled in.
    #[serde(default, rename = "part")]
    pub parts: Vec<Part>,
}

/// A model of a set.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Section of the models file: `relevance`, `detector` or `judge`.
    pub section: String,
    /// The repository.
    #[serde(deserialize_with = "parsed")]
    pub repo: RepoId,
    /// The commit, or a branch that is pinned when it is pulled.
    #[serde(deserialize_with = "parsed")]
    pub revision: Revision,
    /// Licence of the weights.
    pub licence: String,
    /// Number of parameters.
    pub parameters: u64,
    /// How many of them are stored in 4 bits, by AWQ.
    #[serde(default)]
    pub packed: u64,
    /// Precision in which the others are stored.
    pub stored: Dtype,
}

/// A precision of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits, of which 8 are the exponent.
    Bf16,
    /// 16 bits, of which 5 are the exponent.
    F16,
}

impl Dtype {
    /// Bytes of a number.
    fn size(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// As in the data.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

impl Part {
    /// Bytes to download, about.
    pub fn download_bytes(&self) -> u64 {
        // AWQ adds a scale of 16 bits and a zero of 4 to each 128 numbers of 4 bits.
        self.packed * (128 * 4 + 16 + 4) / (128 * 8) + (self.parameters - self.packed) * self.stored.size()
    }
}

impl Preset {
    /// Its checkpoints, as a models file names them.
    pub fn pins(&self) -> Vec<Pin> {
        let pin = |part: &Part| Pin {
            section: part.section.clone(),
            repo: part.repo.clone(),
            revision: part.revision.clone(),
        };
        self.parts.iter().map(pin).collect()
    }

    /// Bytes to download, about.
    pub fn download_bytes(&self) -> u64 {
        self.parts.iter().map(Part::download_bytes).sum()
    }

    /// Bytes of memory that judging needs, on the GPU if the models run there: the weights and a quarter more.
    pub fn memory_bytes(&self) -> u64 {
        let weights: u64 = self.parts.iter().map(|part| part.parameters * self.dtype.size()).sum();
        weights + weights / 4
    }

    /// Refuses a machine that has less memory (`None`: unknown, accepted).
    ///
    /// # Errors
    /// `Memory` with the figures.
    pub fn check_memory(&self, total: Option<u64>) -> Result<()> {
        match total {
            Some(total) if total < self.memory_bytes() => Err(HubError::new(
                HubErrorKind::Memory,
                format!(
                    "the preset {} needs about {} of memory in {} (weights and a quarter more), this machine has {}: take \
                     a smaller one (`cluegate models list --presets`), or go on with --force, if it will run on a GPU \
                     with that much or on another machine",
                    self.name,
                    bytes(self.memory_bytes()),
                    self.dtype.name(),
                    bytes(total)
                ),
            )),
            _ => Ok(()),
        }
    }
}

fn parsed<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr<Err = HubError>,
{
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// The file, as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    preset: Vec<Preset>,
}

/// All presets, in the order of the file.
///
/// # Errors
/// `Setting` if the compiled-in data is malformed, which a test excludes.
pub fn all() -> Result<&'static [Preset]> {
    static PRESETS: OnceLock<std::result::Result<Vec<Preset>, String>> = OnceLock::new();
    let parsed = PRESETS.get_or_init(|| {
        toml::from_str::<File>(include_str!("../presets.toml"))
            .map(|file| file.preset)
            .map_err(|error| error.to_string())
    });
    parsed.as_deref().map_err(|error| HubError::setting(format!("presets.toml: {error}")))
}

/// The preset of this name.
///
/// # Errors
/// As [`all`].
pub fn find(name: &str) -> Result<Option<&'static Preset>> {
    Ok(all()?.iter().find(|preset| preset.name == name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn presets_are_whole_and_their_figures_plausible() {
        let presets = all().unwrap();
        let names: BTreeSet<&str> = presets.iter().map(|preset| preset.name.as_str()).collect();
        assert_eq!(names.len(), presets.len());
        for needed in [
            "mini",
            "laptop",
            "paper-qwen2-vl-7b",
            "paper-internvl2-8b",
            "paper-llava-v1.6-34b",
            "paper-internvl2-76b",
        ] {
            assert!(names.contains(needed), "{needed}");
        }
        for preset in presets {
            // A preset is told from a file by its name.
            assert!(
                preset.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)),
                "{}",
                preset.name
            );
            let sections: Vec<&str> = preset.parts.iter().map(|part| part.section.as_str()).collect();
            if preset.name != "mini" {
                assert_eq!(sections, ["relevance", "detector", "judge"], "{}", preset.name);
            }
            for part in &preset.parts {
                assert!(!part.licence.is_empty(), "{}", part.repo);
                assert!((100_000_000..100_000_000_000).contains(&part.parameters), "{}", part.repo);
                assert!(part.packed < part.parameters, "{}", part.repo);
            }
        }
        let laptop = find("laptop").unwrap().unwrap();
        assert!(laptop.memory_bytes() < 8_000_000_000 && laptop.download_bytes() < 3_000_000_000);
        assert!(find("desktop").unwrap().is_none());
        let packed = find("paper-internvl2-8b").unwrap().unwrap();
        assert!(
            (6_900_000_000..7_200_000_000).contains(&packed.download_bytes()),
            "{}",
            packed.download_bytes()
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_with_figures() {
        let large = find("paper-internvl2-76b").unwrap().unwrap();
        assert!(large.check_memory(None).is_ok() && large.check_memory(Some(u64::MAX)).is_ok());
        let error = large.check_memory(Some(16_000_000_000)).unwrap_err();
        assert_eq!(error.kind(), HubErrorKind::Memory);
        for part in ["paper-internvl2-76b", "16.0 GB", "GB of memory in bf16", "--force"] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }
}
