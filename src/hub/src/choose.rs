//! Which files of a repository a model needs.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::error::{HubError, HubErrorKind, Result};
use crate::info::RemoteFile;
use crate::names::{FileName, RepoId};

/// Configuration, tokenizer, preprocessing and chat template, as transformers and diffusers name them, and what the
/// licence asks to be kept with the weights.
const SMALL: [&str; 24] = [
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
    "README.md",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model_index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "quant_config.json",
    "quantize_config.json",
    "scheduler_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
];

/// Folders of a pipeline in the layout of diffusers; a repository has them beside a `model_index.json`.
const PIPELINE: [&str; 5] = ["scheduler/", "text_encoder/", "tokenizer/", "unet/", "vae/"];

/// Weights in safetensors.
const SAFE: [&str; 2] = ["model.safetensors", "diffusion_pytorch_model.safetensors"];

/// Weights in PyTorch's own format, for folders without safetensors: pickles, which are read as data.
const PICKLED: [&str; 2] = ["pytorch_model.bin", "diffusion_pytorch_model.bin"];

/// Beside the name of the weights: which shards there are.
const INDEX: &str = ".index.json";

/// Suffixes of weights that cannot be read here, to name them when there are no others.
const OTHER_WEIGHTS: [&str; 7] = [".bin", ".pth", ".pt", ".onnx", ".gguf", ".h5", ".msgpack"];

/// Whether a file holds weights as a pickle.
pub(crate) fn is_pickle(name: &str) -> bool {
    name.ends_with(".bin")
}

/// What to fetch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// All files but the shards that an index lists.
    pub(crate) files: Vec<FileName>,
    /// Indices of shards, which say what else is needed.
    pub(crate) indices: Vec<FileName>,
}

/// `model.safetensors.index.json` or `pytorch_model.bin.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

/// Chooses among the files of `repo`.
pub(crate) fn choose(repo: &RepoId, files: &[RemoteFile]) -> Result<Choice> {
    let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let pipeline = names.contains("model_index.json");
    let folders: Vec<&str> = if pipeline { [&[""], &PIPELINE[..]].concat() } else { vec![""] };
    if !pipeline && !names.contains("config.json") {
        return Err(unsuitable(repo, "it has no config.json, which says what model it is"));
    }
    let (mut chosen, mut indices) = (Vec::new(), Vec::new());
    let mut weights = 0;
    for file in files {
        let (folder, name) = file.name.split();
        if !folders.contains(&folder) {
            continue;
        }
        let has = |name: &str| names.contains(format!("{folder}{name}").as_str());
        // Pickles stand in where a folder has nothing else; never both.
        let safe = SAFE.iter().any(|safe| has(safe) || has(&format!("{safe}{INDEX}")));
        let read = if safe { SAFE } else { PICKLED };
        if read.contains(&name) {
            // Where there is an index, the loader follows it.
            if !has(&format!("{name}{INDEX}")) {
                chosen.push(file.name.clone());
                weights += 1;
            }
        } else if name.strip_suffix(INDEX).is_some_and(|single| read.contains(&single)) {
            indices.push(file.name.clone());
            weights += 1;
        } else if SMALL.contains(&name) {
            chosen.push(file.name.clone());
        }
    }
    if weights == 0 {
        let others: Vec<&str> = names
            .iter()
            .filter(|name| OTHER_WEIGHTS.iter().any(|suffix| name.ends_with(suffix)))
            .take(3)
            .copied()
            .collect();
        let found = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        let detail = format!(
            "expected weights in model.safetensors or pytorch_model.bin or in shards with an index, found {found}. Many repositories have a \
             converted copy on a branch: look for it on the repository's page and name it with --revision, such as \
             refs/pr/1"
        );
        return Err(unsuitable(repo, &detail));
    }
    Ok(Choice { files: chosen, indices })
}

/// The shards that an index lists, each of which has to be in the repository.
pub(crate) fn shards(index: &FileName, content: &[u8], files: &[RemoteFile]) -> Result<Vec<FileName>> {
    let malformed = |detail: String| HubError::answer(format!("{index}: {detail}"));
    let parsed: Index = serde_json::from_slice(content)
        .map_err(|error| malformed(format!("not an index of shards: {error}")))?;
    let (folder, _) = index.split();
    let wanted: BTreeSet<String> =
        parsed.weight_map.values().map(|shard| format!("{folder}{shard}")).collect();
    // Shards are in the format of their index.
    let suffix = if index.as_str().ends_with(".bin.index.json") { ".bin" } else { ".safetensors" };
    let shard = |name: &String| {
        let listed = files.iter().find(|file| file.name.as_str() == name && name.ends_with(suffix));
        let listed = listed.map(|file| file.name.clone());
        listed.ok_or_else(|| {
            malformed(format!("it names the shard {name:?}, which the repository does not have"))
        })
    };
    wanted.iter().map(shard).collect()
}

/// What a folder in the cache lacks of what its own files ask for; empty if it can be loaded as far as names tell.
pub(crate) fn missing(exists: &dyn Fn(&str) -> bool, read: &dyn Fn(&str) -> Option<Vec<u8>>) -> Vec<String> {
    let mut lacking = Vec::new();
    let pipeline = exists("model_index.json");
    if !pipeline && !exists("config.json") {
        lacking.push("config.json".to_owned());
    }
    let folders = if pipeline { &["unet/", "vae/"][..] } else { &[""][..] };
    for folder in folders {
        let safe = SAFE
            .iter()
            .any(|safe| exists(&format!("{folder}{safe}")) || exists(&format!("{folder}{safe}{INDEX}")));
        let names = if safe { SAFE } else { PICKLED };
        let index = names.iter().map(|single| format!("{folder}{single}{INDEX}")).find(|name| exists(name));
        let single = names.iter().map(|single| format!("{folder}{single}")).find(|name| exists(name));
        match (index, single) {
            (Some(index), _) => {
                let parsed = read(&index).and_then(|content| serde_json::from_slice::<Index>(&content).ok());
                let Some(parsed) = parsed else {
                    lacking.push(index);
                    continue;
                };
                let shards: BTreeSet<&String> = parsed.weight_map.values().collect();
                lacking.extend(
                    shards.into_iter().map(|shard| format!("{folder}{shard}")).filter(|name| !exists(name)),
                );
            }
            (None, Some(_)) => {}
            (None, None) => lacking.push(format!("{folder}model.safetensors")),
        }
    }
    lacking
}

fn unsuitable(repo: &RepoId, detail: &str) -> HubError {
    HubError::new(HubErrorKind::Unsuitable, format!("{repo} cannot be used: {detail}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn files(names: &[&str]) -> Vec<RemoteFile> {
        let file = |name: &&str| RemoteFile { name: name.parse().unwrap(), size: Some(1), digest: None };
        names.iter().map(file).collect()
    }

    fn chosen(names: &[&str]) -> (Vec<String>, Vec<String>) {
        let choice = choose(&"a/b".parse().unwrap(), &files(names)).unwrap();
        let text = |names: Vec<FileName>| names.iter().map(ToString::to_string).collect();
        (text(choice.files), text(choice.indices))
    }

    #[test]
    fn only_what_a_model_needs_is_chosen() {
        let clip = [
            ".gitattributes",
            "README.md",
            "config.json",
            "flax_model.msgpack",
            "merges.txt",
            "model.safetensors",
            "preprocessor_config.json",
            "pytorch_model.bin",
            "tf_model.h5",
            "tokenizer.json",
            "vocab.json",
            "onnx/model.onnx",
            "onnx/config.json",
        ];
        let (files, indices) = chosen(&clip);
        assert_eq!(
            files,
            [
                "README.md",
                "config.json",
                "merges.txt",
                "model.safetensors",
                "preprocessor_config.json",
                "tokenizer.json",
                "vocab.json"
            ]
        );
        assert!(indices.is_empty());
        let sharded = [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model.safetensors",
            "model.safetensors.index.json",
            "modeling_x.py",
        ];
        assert_eq!(
            chosen(&sharded),
            (vec!["config.json".into()], vec!["model.safetensors.index.json".into()])
        );
        let pipeline = [
            "model_index.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "unet/diffusion_pytorch_model.bin",
            "safety_checker/model.safetensors",
            "v1-5-pruned.safetensors",
        ];
        assert_eq!(
            chosen(&pipeline).0,
            ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
        );
    }

    #[test]
    fn pickles_stand_in_where_there_is_nothing_else() {
        let (files, indices) = chosen(&[
            "config.json",
            "pytorch_model.bin",
            "model.pth",
            "model.pt",
            "a.onnx",
            "a.gguf",
            "b.bin",
        ]);
        assert_eq!(
            (files.as_slice(), indices.len()),
            (&["config.json".to_owned(), "pytorch_model.bin".to_owned()][..], 0)
        );
        let shards = [
            "config.json",
            "pytorch_model-00001-of-00001.bin",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
        ];
        assert_eq!(
            chosen(&shards),
            (vec!["config.json".into()], vec!["pytorch_model.bin.index.json".into()])
        );
        // Never both, however the safetensors are kept.
        let mut both = shards.to_vec();
        both.push("model.safetensors.index.json");
        assert_eq!(chosen(&both).1, ["model.safetensors.index.json"]);
        let mixed = [
            "model_index.json",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.bin",
        ];
        assert_eq!(chosen(&mixed).0, mixed);
        assert!(is_pickle("unet/diffusion_pytorch_model.bin") && !is_pickle("model.safetensors"));
    }

    #[test]
    fn an_index_names_shards_of_its_own_format() {
        let listed = files(&["a.bin", "a.safetensors"]);
        let shards = |index: &str, shard: &str| {
            let content = format!(r#"{{"weight_map":{{"w":"{shard}"}}}}"#);
            super::shards(&index.parse().unwrap(), content.as_bytes(), &listed).is_ok()
        };
        assert!(
            shards("pytorch_model.bin.index.json", "a.bin")
                && shards("model.safetensors.index.json", "a.safetensors")
        );
        assert!(
            !shards("pytorch_model.bin.index.json", "a.safetensors")
                && !shards("model.safetensors.index.json", "a.bin")
        );
    }

    #[test]
    fn a_repository_without_weights_that_are_read_says_what_it_has() {
        let choose = |names: &[&str]| choose(&"a/b".parse().unwrap(), &files(names)).unwrap_err();
        let error = choose(&["config.json", "pytorch_model.pth", "adapter.safetensors"]);
        assert_eq!(error.kind(), HubErrorKind::Unsuitable);
        for part in ["a/b", "pytorch_model.pth", "model.safetensors", "--revision"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(choose(&["model.safetensors"]).to_string().contains("config.json"));
    }

    #[test]
    fn an_index_names_shards_of_the_repository_only() {
        let listed = files(&["a-1.safetensors", "b-2.safetensors", "unet/a-1.safetensors", "x.py"]);
        let shards = |index: &str, map: &str| {
            let content = format!("{{\"metadata\":{{}},\"weight_map\":{map}}}");
            super::shards(&index.parse().unwrap(), content.as_bytes(), &listed)
        };
        let two = r#"{"w":"b-2.safetensors","v":"a-1.safetensors","u":"a-1.safetensors"}"#;
        let names: Vec<String> = shards("i.json", two).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a-1.safetensors", "b-2.safetensors"]);
        assert_eq!(
            shards("unet/i.json", r#"{"w":"a-1.safetensors"}"#).unwrap()[0].as_str(),
            "unet/a-1.safetensors"
        );
        for bad in [r#"{"w":"../../etc/passwd"}"#, r#"{"w":"x.py"}"#, r#"{"w":"c.safetensors"}"#, "3"] {
            assert!(shards("i.json", bad).unwrap_err().to_string().starts_with("i.json: "), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_index_gives_listed_shards_or_an_error(content in r#"[{}":,a-c./]{0,40}"#, shard in r"[a-c./]{0,6}") {
            let listed = files(&["a", "b.safetensors", "c.safetensors"]);
            let index: FileName = "model.safetensors.index.json".parse().unwrap();
            let sound = format!("{{\"weight_map\":{{\"w\":\"{shard}.safetensors\"}}}}");
            for content in [content, sound] {
                if let Ok(names) = shards(&index, content.as_bytes(), &listed) {
                    prop_assert!(names.iter().all(|name| listed.iter().any(|file| file.name == *name)));
                }
            }
        }
    }
}
