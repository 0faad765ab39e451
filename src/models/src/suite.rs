//! A set of models that work together, named by one file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device};
use cluegate_cache::Cache;
use cluegate_perception::{LocalLanguageModel, RegionDetector, RelevanceEncoder};
use serde::Deserialize;
use toml::{Table, Value};

use crate::domain::Domain;
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::idefics3;
use crate::internvl;
use crate::language::{LanguageModel, packing};
use crate::layers::Quantisation;
use crate::llava;
use crate::owlv2::Owlv2Model;
use crate::relevance::RelevanceModel;
use crate::text;
use crate::{qwen2_5_vl, qwen2_vl, qwen3_vl};

/// Name of the file that names the models of a suite.
pub const MODELS_FILE: &str = "models.toml";

/// `models.toml`, as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSuite {
    relevance: Option<RawRelevance>,
    detector: Option<RawPart>,
    judge: Option<RawPart>,
    text: Option<RawText>,
    generator: Option<RawPart>,
    prefilter: Option<RawPrefilter>,
}

/// Sections whose model may be behind addresses (`urls`) instead of in a folder. What such a section says is not this
/// crate's business.
const ELSEWHERE: [&str; 3] = ["relevance", "judge", TEXT];

/// The section of the text model, and its key for the folder of prompts.
const TEXT: &str = "text";
const TEMPLATES: &str = "templates";

/// Takes the sections out of a models file whose models are elsewhere.
fn take_elsewhere(file: &mut Table) -> BTreeMap<String, Table> {
    let is_elsewhere = |name: &str, file: &Table| {
        file.get(name).and_then(Value::as_table).is_some_and(|section| section.contains_key("urls"))
    };
    let names = ELSEWHERE.into_iter().filter(|name| is_elsewhere(name, file)).collect::<Vec<_>>();
    let taken = names.into_iter().filter_map(|name| match file.remove(name) {
        Some(Value::Table(section)) => Some((name.to_owned(), section)),
        _ => None,
    });
    taken.collect()
}

/// A folder in Hugging Face layout, or the repository that has it; its `config.json` says which family it holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPart {
    folder: Option<String>,
    repo: Option<String>,
    revision: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRelevance {
    folder: Option<String>,
    repo: Option<String>,
    revision: Option<String>,
    threshold: Option<f32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPrefilter {
    folder: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawText {
    folder: Option<String>,
    repo: Option<String>,
    revision: Option<String>,
    templates: Option<String>,
}

/// Finds the folder of a repository (`org/name`) at a revision, `main` if none is named. The error says what is not there
/// and how to fetch it.
pub type FindCheckpoint<'a> = dyn Fn(&str, &str) -> std::result::Result<PathBuf, String> + 'a;

/// Where the folders of a models file are looked for.
struct Places<'a> {
    tree: &'a FileTree,
    path: &'a str,
    find: &'a FindCheckpoint<'a>,
}

impl Places<'_> {
    /// The folder of a section.
    fn folder(&self, section: &'static str, part: &RawPart) -> Result<FileTree> {
        let malformed = |detail: &str| ModelError::malformed(self.path, format!("[{section}] {detail}"));
        match (&part.folder, &part.repo) {
            (Some(folder), None) if part.revision.is_none() => self.tree.folder(folder),
            (None, Some(repo)) => {
                let found = (self.find)(repo, part.revision.as_deref().unwrap_or("main"));
                let not_fetched =
                    |detail| ModelError::NotFetched { path: self.path.to_owned(), section, detail };
                FileTree::open(found.map_err(not_fetched)?)
            }
            (Some(_), None) => {
                Err(malformed("`revision` belongs to `repo`, and this section has a `folder`"))
            }
            (Some(_), Some(_)) => Err(malformed("expected either `folder` or `repo`, got both")),
            (None, None) => Err(malformed(
                "expected `folder = \"...\"`, or `repo = \"org/name\"` and `revision = \"...\"`, got neither",
            )),
        }
    }

    fn part<T: ?Sized>(&self, section: &'static str, part: Option<&RawPart>) -> Result<Part<T>> {
        let folder = part.map(|part| self.folder(section, part)).transpose()?;
        Ok(Part { folder, loaded: Mutex::new(None) })
    }
}

/// Where models compute, and in what precision.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The device.
    pub device: Device,
    /// What weights are converted to.
    pub dtype: DType,
    /// Fewer bits for the matrices of a language model. A checkpoint that has its matrices in 4 bits already (AWQ) keeps
    /// them so with any of these, and without they are converted to `dtype`.
    pub quantisation: Option<Quantisation>,
}

impl Default for LoadOptions {
    /// On the CPU in f32.
    fn default() -> Self {
        Self { device: Device::Cpu, dtype: DType::F32, quantisation: None }
    }
}

/// The only field of `config.json` that is read before the family is known.
#[derive(Deserialize)]
struct Family {
    model_type: String,
}

/// Models that are loaded when they are first asked for, and the domain that they know.
///
/// ```toml
/// [relevance]
/// folder = "relevance"     # relative to this file, or absolute
/// threshold = 0.22         # optional; the cosine from which a rule is relevant with these weights
/// [detector]
/// folder = "detector"
/// [judge]
/// folder = "judge"
/// [text]
/// folder = "text"          # writes constitutions from prose; may be the judge's folder
/// templates = "templates"  # optional; the prompts that this model is asked with, relative to this file
/// [generator]
/// folder = "generator"
/// [prefilter]
/// folder = "head"          # optional; clears pictures before the judge is asked, see docs/student.md
/// ```
///
/// Instead of a folder a section may name a checkpoint of the Hugging Face hub, which has to be fetched before:
/// `repo = "Qwen/Qwen2-VL-7B-Instruct"` and `revision = "COMMIT"`.
///
/// `[relevance]`, `[judge]` and `[text]` may instead name addresses, `urls`, of engines on other machines; `[text]` may name
/// `templates` there too.
///
/// Every part may be missing; asking for it is then an error. A file `domain.json` beside this one states what the
/// models cannot judge.
pub struct Suite {
    path: String,
    options: LoadOptions,
    cache: Cache,
    relevance: Part<dyn RelevanceEncoder>,
    threshold: Option<f32>,
    detector: Part<dyn RegionDetector>,
    judge: Part<dyn LocalLanguageModel>,
    text: Part<dyn LocalLanguageModel>,
    text_templates: Option<FileTree>,
    generator: Option<FileTree>,
    prefilter: Option<FileTree>,
    tree: FileTree,
    elsewhere: BTreeMap<String, Table>,
}

/// A model's folder, and the model once it was asked for.
struct Part<T: ?Sized> {
    folder: Option<FileTree>,
    loaded: Mutex<Option<Arc<T>>>,
}

impl<T: ?Sized> Part<T> {
    /// The model; whoever asks while it is being loaded waits for it. A failure is not remembered.
    fn get(
        &self,
        path: &str,
        section: &str,
        load: impl FnOnce(&FileTree) -> Result<Arc<T>>,
    ) -> Result<Arc<T>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = &*loaded {
            return Ok(model.clone());
        }
        let model = load(required(self.folder.as_ref(), path, section)?)?;
        *loaded = Some(model.clone());
        Ok(model)
    }
}

fn required<'a>(folder: Option<&'a FileTree>, path: &str, section: &str) -> Result<&'a FileTree> {
    folder.ok_or_else(|| {
        ModelError::malformed(path, format!("no section [{section}]; add one with `folder = \"...\"`"))
    })
}

impl Suite {
    /// Reads `models.toml` of a folder; models will compute on the CPU in f32.
    ///
    /// # Errors
    /// `MissingFile` for the file or a folder that it names; `Malformed` for an unknown key.
    pub fn open(tree: &FileTree) -> Result<Self> {
        Self::open_file(tree, MODELS_FILE)
    }

    /// The same for a file of another name in that folder.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_file(tree: &FileTree, name: &str) -> Result<Self> {
        let nowhere =
            |repo: &str, _: &str| Err(format!("{repo}: no cache of the Hugging Face hub was named"));
        Self::from_text(tree, name, &tree.read_text(name)?, &nowhere)
    }

    /// The same for a text that stands for the file `name` of that folder; checkpoints that it names by their
    /// repositories are looked for by `find`.
    ///
    /// # Errors
    /// As [`Self::open`]; `NotFetched` for a checkpoint that is not found.
    pub fn from_text(tree: &FileTree, name: &str, text: &str, find: &FindCheckpoint<'_>) -> Result<Self> {
        let path = tree.path_of(name);
        let malformed = |e: toml::de::Error| ModelError::malformed(&path, e.to_string());
        let mut file: Table = toml::from_str(text).map_err(malformed)?;
        let mut elsewhere = take_elsewhere(&mut file);
        // The prompts of an engine elsewhere lie here.
        let asked = elsewhere.get_mut(TEXT).and_then(|section| section.remove(TEMPLATES));
        let mut templates = asked.map(|value| match value {
            Value::String(folder) => Ok(folder),
            other => {
                let detail = format!("[{TEXT}] {TEMPLATES}: expected a folder, got {other}");
                Err(ModelError::malformed(&path, detail))
            }
        });
        // Read from the text where nothing was taken out: then messages show the line.
        let raw: RawSuite =
            if elsewhere.is_empty() { toml::from_str(text) } else { file.try_into() }.map_err(malformed)?;
        let threshold = raw.relevance.as_ref().and_then(|part| part.threshold);
        if let Some(value) = threshold.filter(|value| !(-1.0..=1.0).contains(value)) {
            let detail = format!("[relevance] threshold is {value}, expected a cosine, -1 to 1");
            return Err(ModelError::malformed(path, detail));
        }
        let relevance = raw.relevance.map(|RawRelevance { folder, repo, revision, .. }| RawPart {
            folder,
            repo,
            revision,
        });
        let text = raw.text.map(|RawText { folder, repo, revision, templates: beside }| {
            templates = beside.map(Ok);
            RawPart { folder, repo, revision }
        });
        let text_templates = templates.transpose()?.map(|folder| tree.folder(&folder)).transpose()?;
        let places = Places { tree, path: &path, find };
        Ok(Self {
            options: LoadOptions::default(),
            cache: Cache::in_memory(),
            relevance: places.part("relevance", relevance.as_ref())?,
            threshold,
            detector: places.part("detector", raw.detector.as_ref())?,
            judge: places.part("judge", raw.judge.as_ref())?,
            text: places.part(TEXT, text.as_ref())?,
            text_templates,
            generator: raw.generator.as_ref().map(|part| places.folder("generator", part)).transpose()?,
            prefilter: raw.prefilter.map(|part| tree.folder(&part.folder)).transpose()?,
            tree: tree.clone(),
            elsewhere,
            path,
        })
    }

    /// What the file says of a model (`relevance`, `judge` or `text`) that is behind addresses, `urls`, instead of in a
    /// folder; [`Self::judge`] and its like have none then.
    pub fn elsewhere(&self, section: &str) -> Option<&Table> {
        self.elsewhere.get(section)
    }

    /// The same suite, computing elsewhere or in another precision. For a suite of which nothing is loaded yet.
    #[must_use]
    pub fn with_options(mut self, options: LoadOptions) -> Self {
        self.options = options;
        self
    }

    /// The same suite, whose models keep what they compute from texts alone in `cache`. For a suite of which nothing
    /// is loaded yet.
    #[must_use]
    pub fn with_cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }

    /// The relevance encoder.
    ///
    /// # Errors
    /// A missing section, an unsupported family, or what its loader refuses.
    pub fn relevance(&self) -> Result<Arc<dyn RelevanceEncoder>> {
        self.relevance.get(&self.path, "relevance", |folder| {
            load_relevance_on(folder, self.threshold, &self.options, &self.cache)
        })
    }

    /// The region detector.
    ///
    /// # Errors
    /// A missing section, an unsupported family, or what its loader refuses.
    pub fn detector(&self) -> Result<Arc<dyn RegionDetector>> {
        let load = |folder: &FileTree| load_detector_on(folder, &self.options, &self.cache);
        self.detector.get(&self.path, "detector", load)
    }

    /// The judging vision-language model.
    ///
    /// # Errors
    /// A missing section, an unsupported family, or what its loader refuses.
    pub fn judge(&self) -> Result<Arc<dyn LocalLanguageModel>> {
        self.judge.get(&self.path, "judge", |folder| Ok(Arc::new(load_judge(folder, &self.options)?)))
    }

    /// The language model of the tools that write constitutions. It need not see pictures.
    ///
    /// # Errors
    /// A missing section, an unsupported family, or what its loader refuses.
    pub fn text(&self) -> Result<Arc<dyn LocalLanguageModel>> {
        self.text.get(&self.path, TEXT, |folder| Ok(Arc::new(load_text(folder, &self.options)?)))
    }

    /// Whether the file names a text model, here or behind addresses.
    pub fn has_text(&self) -> bool {
        self.text.folder.is_some() || self.elsewhere.contains_key(TEXT)
    }

    /// The folder of prompts that the text model is to be asked with, if the file names one.
    pub fn text_templates(&self) -> Option<&FileTree> {
        self.text_templates.as_ref()
    }

    /// Whether the file names a generator. A set that only judges needs none.
    pub fn has_generator(&self) -> bool {
        self.generator.is_some()
    }

    /// Where the judge's files are, for [`load_judge`].
    ///
    /// # Errors
    /// `Malformed` if the suite has no judge.
    pub fn judge_folder(&self) -> Result<FileTree> {
        required(self.judge.folder.as_ref(), &self.path, "judge").cloned()
    }

    /// Where the generator's files are; loading them is the business of the crate that draws.
    ///
    /// # Errors
    /// `Malformed` if the suite has no generator.
    pub fn generator_folder(&self) -> Result<FileTree> {
        required(self.generator.as_ref(), &self.path, "generator").cloned()
    }

    /// Where the pre-filter's files are, if the file names one; loading them is the business of the judge's.
    pub fn prefilter_folder(&self) -> Option<&FileTree> {
        self.prefilter.as_ref()
    }

    /// What the models know, if the suite states it; read anew with each call.
    ///
    /// # Errors
    /// See [`Domain::load`].
    pub fn domain(&self) -> Result<Option<Domain>> {
        Domain::load(&self.tree)
    }
}

/// The `model_type`s that [`load_judge`] knows.
const JUDGES: &str =
    "internvl, internvl_chat, qwen2_vl, qwen2_5_vl, qwen3_vl, llava, llava_next, idefics3, smolvlm";

/// Loads a judge of any supported family from its folder.
///
/// # Errors
/// `Unsupported` for another family, or what its loader refuses.
pub fn load_judge(folder: &FileTree, options: &LoadOptions) -> Result<LanguageModel> {
    packing::check(folder)?;
    match family(folder)?.as_str() {
        "idefics3" | "smolvlm" => idefics3::load(folder, options),
        "qwen2_vl" => qwen2_vl::load(folder, options),
        "qwen2_5_vl" => qwen2_5_vl::load(folder, options),
        "qwen3_vl" => qwen3_vl::load(folder, options),
        "llava" | "llava_next" | "llava_llama" | "llava_mistral" => llava::load(folder, options),
        "internvl" | "internvl_chat" => internvl::load(folder, options),
        other => Err(unsupported(folder, other, JUDGES)),
    }
}

/// Loads a language model of any supported family from its folder: one that reads text only and refuses questions about
/// pictures, or a judge.
///
/// # Errors
/// `Unsupported` for another family, or what its loader refuses.
pub fn load_text(folder: &FileTree, options: &LoadOptions) -> Result<LanguageModel> {
    packing::check(folder)?;
    let found = family(folder)?;
    if text::FAMILIES.contains(&found.as_str()) {
        return text::load(folder, options);
    }
    load_judge(folder, options).map_err(|error| match error {
        ModelError::Unsupported { supported, .. } if supported == JUDGES => {
            unsupported(folder, &found, &format!("{}, {JUDGES}", text::FAMILIES.join(", ")))
        }
        other => other,
    })
}

/// Loads a region detector of any supported family from its folder.
///
/// # Errors
/// `Unsupported` for another family, or what its loader refuses.
pub fn load_detector(folder: &FileTree, options: &LoadOptions) -> Result<Arc<dyn RegionDetector>> {
    load_detector_on(folder, options, &Cache::in_memory())
}

/// Loads a relevance encoder of any supported family from its folder.
///
/// # Errors
/// `Unsupported` for another family, or what its loader refuses.
pub fn load_relevance(folder: &FileTree, options: &LoadOptions) -> Result<Arc<dyn RelevanceEncoder>> {
    load_relevance_on(folder, None, options, &Cache::in_memory())
}

fn load_detector_on(
    folder: &FileTree,
    LoadOptions { device, dtype, .. }: &LoadOptions,
    cache: &Cache,
) -> Result<Arc<dyn RegionDetector>> {
    match family(folder)?.as_str() {
        "owlv2" => Ok(Arc::new(Owlv2Model::load(folder, device, *dtype)?.with_cache(cache.clone()))),
        other => Err(unsupported(folder, other, "owlv2")),
    }
}

fn load_relevance_on(
    folder: &FileTree,
    threshold: Option<f32>,
    LoadOptions { device, dtype, .. }: &LoadOptions,
    cache: &Cache,
) -> Result<Arc<dyn RelevanceEncoder>> {
    let model = RelevanceModel::load(folder, device, *dtype)?.with_cache(cache.clone());
    Ok(Arc::new(match threshold {
        Some(threshold) => model.with_threshold(threshold),
        None => model,
    }))
}

fn family(folder: &FileTree) -> Result<String> {
    Ok(folder.read_json::<Family>("config.json")?.model_type)
}

fn unsupported(folder: &FileTree, found: &str, supported: &str) -> ModelError {
    ModelError::unsupported(folder.path_of("config.json"), "`model_type`", found, supported)
}
