//! A folder of golden files, and copies of its checkpoint that can be changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use cluegate_models::{FileTree, LanguageModel, LoadOptions, ModelError, load_text};
use cluegate_perception::{CompletionRequest, Picture, Prefix, Prompt, Reply};
use serde::Deserialize;
use serde_json::Value;

/// A model from a folder, be it a judge or one without pictures, on the CPU in f32.
pub(crate) fn load(folder: &Path) -> Result<LanguageModel, ModelError> {
    load_text(&FileTree::open(folder)?, &LoadOptions::default())
}

/// `goldens/NAME`, as `goldens/language.py` writes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Golden(pub(crate) &'static str);

/// One entry of `expected.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Name of the picture.
    pub(crate) picture: Option<String>,
    /// What the user and the assistant say.
    pub(crate) turns: Vec<(String, String)>,
    pub(crate) answer_start: String,
    /// The constant text that the first turn begins with.
    #[serde(default)]
    pub(crate) prefix: String,
    /// The rendered conversation with the family's placeholder.
    pub(crate) prompt: String,
    /// Its tokens, the picture's included.
    pub(crate) tokens: Vec<u32>,
    pub(crate) answer_tokens: Vec<u32>,
    pub(crate) answer_text: String,
}

impl Golden {
    pub(crate) fn folder(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(self.0)
    }

    pub(crate) fn model(self) -> LanguageModel {
        load(&self.folder().join("model")).unwrap()
    }

    pub(crate) fn model_with(self, options: &LoadOptions) -> LanguageModel {
        load_text(&FileTree::open(self.folder().join("model")).unwrap(), options).unwrap()
    }

    /// The tokenizer; beside the checkpoint where that is published without it.
    pub(crate) fn tokenizer(self) -> tokenizers::Tokenizer {
        let files = ["model/tokenizer.json", "tokenizer.json"].map(|file| self.folder().join(file));
        tokenizers::Tokenizer::from_file(files.iter().find(|file| file.exists()).unwrap()).unwrap()
    }

    pub(crate) fn picture(self, name: &str) -> Picture {
        Picture::new(image::open(self.folder().join(format!("{name}.png"))).unwrap().to_rgb8())
    }

    pub(crate) fn cases(self) -> Vec<Case> {
        serde_json::from_slice(&std::fs::read(self.folder().join("expected.json")).unwrap()).unwrap()
    }

    /// Names of the pictures.
    pub(crate) fn pictures(self) -> Vec<String> {
        let mut names: Vec<String> = self.cases().into_iter().filter_map(|case| case.picture).collect();
        names.sort();
        names.dedup();
        names
    }

    pub(crate) fn expected(self) -> BTreeMap<String, Tensor> {
        let path = self.folder().join("expected.safetensors");
        candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect()
    }

    pub(crate) fn prompt(self, case: &Case) -> Prompt {
        let picture = case.picture.as_deref().map(|name| self.picture(name));
        let prefix = Prefix { picture, text: case.prefix.as_str().into() };
        let mut prompt = Prompt::new(prefix, case.turns[0].0.strip_prefix(&case.prefix).unwrap());
        for pair in case.turns.windows(2) {
            prompt.turns.push(Reply { assistant: pair[0].1.clone(), user: pair[1].0.clone() });
        }
        prompt.answer_start = case.answer_start.clone();
        prompt
    }

    pub(crate) fn prompts(self) -> Vec<Prompt> {
        self.cases().iter().map(|case| self.prompt(case)).collect()
    }

    pub(crate) fn requests(self) -> Vec<CompletionRequest> {
        let request = |case: &Case| CompletionRequest {
            prompt: self.prompt(case),
            max_tokens: case.answer_tokens.len(),
        };
        self.cases().iter().map(request).collect()
    }

    /// The logits after each case.
    pub(crate) fn assert_logits(self, model: &LanguageModel) {
        let expected = self.expected();
        for case in self.cases() {
            let found = model.next_logits(&[self.prompt(&case)]).unwrap().remove(0);
            assert_close(&found, &values(&expected[&logits_key(&case)]), &case.name);
        }
    }

    pub(crate) fn copy(self) -> Copy {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(self.folder().join("model")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        Copy(folder)
    }

    /// The refusal of a checkpoint of which one value in `config.json` is another.
    pub(crate) fn refused_with(self, pointer: &str, value: impl Into<Value>) -> ModelError {
        let copy = self.copy();
        let mut config = copy.json("config.json");
        *config.pointer_mut(pointer).expect(pointer) = value.into();
        copy.write("config.json", &config.to_string());
        copy.refused()
    }
}

pub(crate) fn logits_key(case: &Case) -> String {
    format!("logits.{}", case.name.replace(' ', "_"))
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference, relative to the largest expected magnitude.
pub(crate) fn relative_gap(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

pub(crate) fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    let gap = relative_gap(found, expected);
    // A gap that is no number is none that is small.
    assert!(gap < 1e-4, "{what}: off by {gap}");
}

/// A copy of a golden checkpoint, to be changed.
pub(crate) struct Copy(tempfile::TempDir);

impl Copy {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn load(&self) -> LanguageModel {
        load(self.path()).unwrap()
    }

    pub(crate) fn refused(&self) -> ModelError {
        load(self.path()).expect_err("a refusal")
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path().join(name)).unwrap();
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path().join(name)).unwrap()).unwrap()
    }

    pub(crate) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let path = self.path().join("model.safetensors");
        candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect()
    }

    pub(crate) fn save(&self, name: &str, tensors: impl IntoIterator<Item = (String, Tensor)>) {
        candle_core::safetensors::save(&tensors.into_iter().collect(), self.path().join(name)).unwrap();
    }

    pub(crate) fn change_tensors(&self, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
        let mut tensors = self.tensors();
        change(&mut tensors);
        self.save("model.safetensors", tensors);
    }

    /// Divides `tensors` between three files with an index, in the place of `model.safetensors`; the names by file.
    pub(crate) fn shard(&self, tensors: &BTreeMap<String, Tensor>) -> [(String, Vec<String>); 3] {
        self.remove("model.safetensors");
        let shards = [1, 2, 3].map(|shard: usize| {
            let names: Vec<String> = tensors.keys().skip(shard - 1).step_by(3).cloned().collect();
            (format!("model-{shard:05}-of-00003.safetensors"), names)
        });
        let mut map = BTreeMap::new();
        for (file, names) in &shards {
            self.save(file, names.iter().map(|name| (name.clone(), tensors[name].clone())));
            map.extend(names.iter().map(|name| (name.clone(), file.clone())));
        }
        let index = serde_json::json!({"metadata": {}, "weight_map": map});
        self.write("model.safetensors.index.json", &index.to_string());
        shards
    }

    /// Nested configurations become flat, as transformers before 5 wrote them: `keys` are those of the top that the
    /// flat one has too.
    pub(crate) fn flatten_config(&self, keys: &[&str]) {
        let nested = self.json("config.json");
        let mut flat = nested["text_config"].clone();
        for key in keys.iter().chain(&["model_type", "vision_config", "tie_word_embeddings"]) {
            flat[*key] = nested[*key].clone();
        }
        flatten_rope(&mut flat);
        self.write("config.json", &flat.to_string());
    }
}

/// Rotary parameters by their old names.
pub(crate) fn flatten_rope(text: &mut Value) {
    let rope = text.as_object_mut().unwrap().remove("rope_parameters").unwrap();
    text["rope_theta"] = rope["rope_theta"].clone();
    let mut scaling = rope.as_object().unwrap().clone();
    scaling.remove("rope_theta");
    if scaling.contains_key("mrope_section") {
        let kind = scaling.remove("rope_type").unwrap();
        let interleaved = scaling.contains_key("mrope_interleaved");
        let (key, kind) = if interleaved { ("rope_type", kind) } else { ("type", "mrope".into()) };
        scaling.insert(key.to_owned(), kind);
    }
    let plain = scaling.get("rope_type").is_some_and(|kind| kind == "default") && scaling.len() == 1;
    text["rope_scaling"] = if plain { Value::Null } else { scaling.into() };
}

/// All values of a tensor one further along its last axis.
pub(crate) fn stretched(tensor: &Tensor) -> Tensor {
    let mut shape = tensor.dims().to_vec();
    *shape.last_mut().unwrap() += 1;
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}
