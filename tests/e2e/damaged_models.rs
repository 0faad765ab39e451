//! Damaged models: strict loading names what is wrong, and what is not a number is never a verdict.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::support::{Run, Scenes, command, finish, folder, judge, write_suite};

/// A copy of the embedded suite to be damaged.
struct Copy {
    folder: tempfile::TempDir,
    picture: PathBuf,
}

impl Copy {
    fn new() -> Self {
        let (scenes, folder) = (Scenes::new(), folder());
        write_suite(folder.path(), false);
        let picture = scenes.save(&scenes.pair("cat", "tree", false), folder.path(), "cat.png");
        Self { folder, picture }
    }

    fn judge(&self) -> Run {
        judge(&["--models", self.folder.path().to_str().expect("a name")], &[&self.picture])
    }

    /// The models cannot be used: no line is printed, and the message says why.
    #[track_caller]
    fn assert_refused(&self, needed: &[&str]) {
        let run = self.judge().expect(2);
        assert_eq!(run.stdout, "");
        assert!(needed.iter().all(|word| run.stderr.contains(word)), "{needed:?}: {}", run.stderr);
    }

    fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.folder.path().join(file);
        let mut value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
        change(&mut value);
        fs::write(path, value.to_string()).expect("a file");
    }

    /// Changes the header of a safetensors file, and its data.
    fn edit_tensors(&self, file: &str, change: impl FnOnce(&mut Map<String, Value>, &mut [u8])) {
        let path = self.folder.path().join(file);
        let bytes = fs::read(&path).expect("a file");
        let (length, rest) = bytes.split_first_chunk::<8>().expect("a length");
        let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).expect("a length"));
        let mut header = serde_json::from_slice(header).expect("a header");
        let mut data = data.to_vec();
        change(&mut header, &mut data);
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let written = [&(header.len() as u64).to_le_bytes(), header.as_slice(), &data].concat();
        fs::write(path, written).expect("a file");
    }
}

#[test]
fn the_suite_from_a_folder_or_its_models_file_judges() {
    let copy = Copy::new();
    copy.judge().expect(0);
    let file = copy.folder.path().join("models.toml");
    judge(&["--models", file.to_str().expect("a name")], &[&copy.picture]).expect(0);
    let missing = Path::new("no-such-folder/models.toml");
    let run = judge(&["--models", missing.to_str().expect("a name")], &[&copy.picture]).expect(2);
    assert!(run.stderr.contains("no-such-folder"), "{}", run.stderr);
}

#[test]
fn a_missing_tensor_is_named() {
    let copy = Copy::new();
    let name = "text_model.final_layer_norm.weight";
    copy.edit_tensors("relevance/model.safetensors", |header, _| {
        let tensor = header.remove(name).expect("the tensor");
        header.insert("elsewhere".to_owned(), tensor);
    });
    copy.assert_refused(&["relevance", "no tensor", name, "expected one of shape"]);
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let copy = Copy::new();
    let name = "box_head.dense0.weight";
    copy.edit_tensors("detector/model.safetensors", |header, _| {
        header[name]["shape"] = serde_json::json!([96, 384]);
    });
    copy.assert_refused(&["detector", name, "[96, 384]", "[192, 192]", "expected"]);
}

#[test]
fn a_missing_or_damaged_file_is_named() {
    let copy = Copy::new();
    fs::remove_file(copy.folder.path().join("judge/tokenizer.json")).expect("a file");
    copy.assert_refused(&["tokenizer.json", "no such file"]);
    let copy = Copy::new();
    let weights = copy.folder.path().join("judge/model-00002-of-00002.safetensors");
    let bytes = fs::read(&weights).expect("a file");
    fs::write(&weights, &bytes[..bytes.len() / 2]).expect("a file");
    copy.assert_refused(&["model-00002-of-00002.safetensors"]);
}

#[test]
fn a_tokenizer_without_yes_is_refused() {
    let copy = Copy::new();
    copy.edit("judge/tokenizer.json", |tokenizer| {
        let yes = |word: &str| word.trim_start_matches('Ġ').eq_ignore_ascii_case("yes");
        let vocabulary = tokenizer["model"]["vocab"].as_object().expect("a vocabulary");
        let renamed = |word: &str| if yes(word) { word.replace('Y', "Q") } else { word.to_owned() };
        let vocabulary = vocabulary.iter().map(|(word, id)| (renamed(word), id.clone())).collect();
        tokenizer["model"]["vocab"] = Value::Object(vocabulary);
        let merges = tokenizer["model"]["merges"].as_array_mut().expect("merges");
        merges.retain(|pair| {
            !yes(&pair.as_array().expect("a pair").iter().filter_map(Value::as_str).collect::<String>())
        });
    });
    copy.assert_refused(&["tokenizer.json", "Yes"]);
}

#[test]
fn a_model_of_another_family_or_a_damaged_configuration_is_named() {
    let copy = Copy::new();
    copy.edit("detector/config.json", |config| config["model_type"] = "detr".into());
    copy.assert_refused(&["detector/config.json", "`model_type`", "`detr`", "owlv2"]);
    let copy = Copy::new();
    fs::write(copy.folder.path().join("judge/config.json"), "{\"model_type\": ").expect("a file");
    copy.assert_refused(&["judge/config.json", "line 1"]);
    let copy = Copy::new();
    fs::write(copy.folder.path().join("models.toml"), "[jugde]\nfolder = \"judge\"\n").expect("a file");
    copy.assert_refused(&["models.toml", "jugde", "`judge`"]);
}

/// Overwrites a tensor of 16-bit numbers with NaN.
fn fill_with_nan(header: &Map<String, Value>, data: &mut [u8], name: &str) {
    let tensor = &header[name];
    let offset = |i: usize| tensor["data_offsets"][i].as_u64().expect("an offset") as usize;
    for number in data[offset(0)..offset(1)].chunks_exact_mut(2) {
        // NaN in bf16 and in f16.
        number.copy_from_slice(&0x7FC0_u16.to_le_bytes());
    }
}

#[test]
fn what_is_not_a_number_is_an_error_and_no_verdict() {
    let tensors = [
        ("judge/model-00001-of-00002.safetensors", "model.norm.weight"),
        ("relevance/model.safetensors", "vision_model.post_layernorm.weight"),
        ("detector/model.safetensors", "layer_norm.weight"),
    ];
    for (file, name) in tensors {
        let copy = Copy::new();
        copy.edit_tensors(file, |header, data| fill_with_nan(header, data, name));
        // A picture for which the scan finds a rule relevant, so that every model is asked.
        let scenes = Scenes::new();
        let copy = Copy {
            picture: scenes.save(&scenes.pair("man", "knife", true), copy.folder.path(), "a.png"),
            ..copy
        };
        let [line] = copy.judge().expect(2).lines().try_into().expect("one line");
        assert_eq!((&line["verdict"], &line["reason"]), (&"error".into(), &"not-a-number".into()), "{line}");
        let message = line["message"].as_str().expect("a message");
        assert!(message.contains("NaN"), "{message}");
    }
}

#[test]
fn a_generator_that_draws_what_is_not_a_number_has_failed() {
    let copy = Copy::new();
    write_suite(copy.folder.path(), true);
    let weights = "generator/vae/diffusion_pytorch_model.safetensors";
    copy.edit_tensors(weights, |header, data| fill_with_nan(header, data, "decoder.conv_out.weight"));
    let out = copy.folder.path().join("pictures");
    let mut command = command();
    command.args([
        "generate", "--prompt", "a cat", "--steps", "2", "--seed", "1", "--format", "json", "--models",
    ]);
    let run = finish(command.arg(copy.folder.path()).arg("--out").arg(&out)).expect(2);
    let picture = &run.json()["pictures"][0];
    let outcome = (&picture["outcome"], &picture["reason"], &picture["violated"]);
    assert_eq!(
        outcome,
        (&"withheld".into(), &"generator-failure".into(), &serde_json::json!([])),
        "{picture}"
    );
    assert!(picture["message"].as_str().is_some_and(|message| message.contains("NaN")), "{picture}");
}
