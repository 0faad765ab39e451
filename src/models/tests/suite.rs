//! Suites: the file that names the models, the models behind it, and the domain that they know.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use candle_core::{Device, Tensor};
use cluegate_models::{FileTree, LoadOptions, ModelErrorKind, OutOfDomain, Suite, load_judge};
use cluegate_perception::{
    Call, Embedding, Fingerprint, Picture, Prefix, Prompt, RelevanceEncoder, VisionLanguageModel as _,
};

fn goldens(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(name).display().to_string()
}

fn suite(models: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("models.toml"), models).unwrap();
    folder
}

fn open(folder: &tempfile::TempDir) -> Result<Suite, cluegate_models::ModelError> {
    Suite::open(&FileTree::open(folder.path())?)
}

#[test]
fn a_part_is_loaded_once_by_the_family_that_its_folder_states() {
    let judge = goldens("qwen2_vl/model");
    let folder = suite(&format!("[judge]\nfolder = \"{judge}\"\n[detector]\nfolder = \"{judge}\"\n"));
    let suite = open(&folder).unwrap();
    let first = suite.judge().unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &suite.judge().unwrap()));
    assert_eq!(
        first.fingerprint(),
        load_judge(&FileTree::open(&judge).unwrap(), &LoadOptions::default()).unwrap().fingerprint()
    );
    // A judge is no detector, and there is no generator.
    let error = suite.detector().err().unwrap();
    assert_eq!(error.kind(), ModelErrorKind::Unsupported);
    assert!(error.to_string().contains("qwen2_vl") && error.to_string().contains("owlv2"), "{error}");
    let error = suite.generator_folder().err().unwrap();
    assert!(error.to_string().contains("[generator]"), "{error}");
    assert!(suite.domain().unwrap().is_none());
}

#[test]
fn a_text_model_may_bring_its_prompts() {
    for model in
        [format!("folder = \"{}\"", goldens("qwen2_vl/model")), "urls = [\"http://gpu:8000\"]".into()]
    {
        let folder = suite(&format!("[text]\n{model}\ntemplates = \"prompts\"\n"));
        assert_eq!(open(&folder).err().unwrap().kind(), ModelErrorKind::MissingFile);
        std::fs::create_dir(folder.path().join("prompts")).unwrap();
        std::fs::write(folder.path().join("prompts/central.txt"), "{{ statement }}").unwrap();
        let suite = open(&folder).unwrap();
        let templates = suite.text_templates().unwrap();
        assert!(suite.has_text() && templates.exists("central.txt") && !templates.exists("revise.txt"));
        assert!(suite.elsewhere("text").is_none_or(|section| section.len() == 1));
    }
    for (text, part) in [
        ("[text]\nurls = []\ntemplates = 3", "[text] templates: expected a folder, got 3"),
        ("[judge]\nfolder = \".\"\ntemplates = \".\"", "templates"),
    ] {
        let error = open(&suite(text)).err().expect(text).to_string();
        assert!(error.contains(part), "{error}");
    }
    let without = open(&suite("[judge]\nurls = []")).unwrap();
    assert!(!without.has_text() && without.text_templates().is_none());
}

#[test]
fn unknown_keys_and_missing_folders_are_refused() {
    for (text, part) in [
        ("[judge]\nfoldr = \"x\"", "foldr"),
        ("[juge]\nfolder = \"x\"", "juge"),
        ("[judge]\nfolder = 3", "folder"),
        ("[relevance]\nfolder = \".\"\nthreshold = 22", "threshold"),
    ] {
        let error = open(&suite(text)).err().expect(text);
        assert_eq!(error.kind(), ModelErrorKind::Malformed);
        assert!(error.to_string().contains(part), "{error}");
    }
    let error = open(&suite("[judge]\nfolder = \"nowhere\"")).err().unwrap();
    assert_eq!(error.kind(), ModelErrorKind::MissingFile);
    let empty = tempfile::tempdir().unwrap();
    let error = open(&empty).err().unwrap();
    assert!(error.kind() == ModelErrorKind::MissingFile && error.to_string().contains("models.toml"));
}

#[test]
fn a_checkpoint_of_the_hub_is_found_or_named_with_what_fetches_it() {
    let commit = "1".repeat(40);
    let judge = goldens("qwen2_vl/model");
    let find = |repo: &str, revision: &str| match (repo, revision) {
        ("org/judge", found) if found == commit || found == "main" => Ok(judge.clone().into()),
        _ => Err(format!("{repo} at {revision}: run `fetch {repo}`")),
    };
    let folder = tempfile::tempdir().unwrap();
    let tree = FileTree::open(folder.path()).unwrap();
    let open = |text: &str| Suite::from_text(&tree, "models.toml", text, &find);
    for revision in [format!("revision = \"{commit}\""), String::new()] {
        let suite = open(&format!("[judge]\nrepo = \"org/judge\"\n{revision}")).unwrap();
        assert!(suite.judge().is_ok());
    }
    let error = open("[relevance]\nrepo = \"org/other\"\nthreshold = 0.1").err().unwrap();
    assert_eq!(error.kind(), ModelErrorKind::NotFetched);
    for part in ["models.toml", "[relevance]", "org/other at main", "run `fetch org/other`"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    for (text, part) in [
        ("[judge]", "got neither"),
        ("[judge]\nfolder = \".\"\nrepo = \"org/judge\"", "got both"),
        ("[judge]\nfolder = \".\"\nrevision = \"main\"", "`revision` belongs to `repo`"),
    ] {
        let error = open(text).err().expect(text);
        assert_eq!(error.kind(), ModelErrorKind::Malformed);
        assert!(error.to_string().contains(part), "{error}");
    }
    // Who opens a file without saying where checkpoints lie is told so.
    std::fs::write(folder.path().join("models.toml"), "[judge]\nrepo = \"org/judge\"").unwrap();
    assert_eq!(Suite::open(&tree).err().unwrap().kind(), ModelErrorKind::NotFetched);
}

#[test]
fn a_tree_in_the_program_loads_as_the_folder_does() {
    static FILES: &[(&str, &[u8])] = &[
        ("models.toml", b"[judge]\nfolder = \"judge\"\n"),
        ("judge/config.json", include_bytes!("../goldens/qwen2_vl/model/config.json")),
        ("judge/generation_config.json", include_bytes!("../goldens/qwen2_vl/model/generation_config.json")),
        ("judge/model.safetensors", include_bytes!("../goldens/qwen2_vl/model/model.safetensors")),
        (
            "judge/preprocessor_config.json",
            include_bytes!("../goldens/qwen2_vl/model/preprocessor_config.json"),
        ),
        ("judge/tokenizer.json", include_bytes!("../goldens/qwen2_vl/model/tokenizer.json")),
        ("judge/tokenizer_config.json", include_bytes!("../goldens/qwen2_vl/model/tokenizer_config.json")),
    ];
    let tree = FileTree::embedded("embedded", FILES);
    let inside = Suite::open(&tree).unwrap().judge().unwrap();
    let outside =
        load_judge(&FileTree::open(goldens("qwen2_vl/model")).unwrap(), &LoadOptions::default()).unwrap();
    assert_eq!(inside.fingerprint(), outside.fingerprint());
    let picture = Picture::new(image::open(goldens("qwen2_vl/wide.png")).unwrap().to_rgb8());
    let prompt = Prompt::new(Prefix { picture: Some(picture), text: "Is it ".into() }, "a cat?");
    assert_eq!(
        inside.score(std::slice::from_ref(&prompt), &Call::default()).unwrap(),
        outside.score(&[prompt], &Call::default()).unwrap()
    );
    let error = tree.folder("judge").unwrap().read("nothing.json").err().unwrap();
    assert!(error.to_string().starts_with("embedded:judge/nothing.json"), "{error}");
    assert_eq!(tree.folder("jud").err().unwrap().kind(), ModelErrorKind::MissingFile);
}

/// Embeds every text as the second axis.
struct Encoder(Fingerprint);

impl RelevanceEncoder for Encoder {
    fn fingerprint(&self) -> &Fingerprint {
        &self.0
    }

    fn default_threshold(&self) -> f32 {
        0.0
    }

    fn embed_pictures(&self, pictures: &[Picture], _: &Call) -> cluegate_perception::Result<Vec<Embedding>> {
        Ok(pictures.iter().map(|_| Embedding::normalised(vec![-1.0, 0.0])).collect())
    }

    fn embed_texts(&self, texts: &[&str], _: &Call) -> cluegate_perception::Result<Vec<Embedding>> {
        Ok(texts.iter().map(|_| Embedding::normalised(vec![0.0, 1.0])).collect())
    }
}

fn with_domain(json: &str) -> tempfile::TempDir {
    let folder = suite("");
    std::fs::write(folder.path().join("domain.json"), json).unwrap();
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    let tensors =
        [("mean", tensor(&[1.0, 0.0], &[2])), ("precision", tensor(&[4.0, 0.0, 0.0, 1.0], &[2, 2]))];
    let tensors = tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    candle_core::safetensors::save(&tensors, folder.path().join("domain.safetensors")).unwrap();
    folder
}

const DOMAIN: &str = r#"{"name": "shapes", "advice": "ask elsewhere", "vocabulary": ["a", "circle", "is", "red"],
    "relevance": {"file": "domain.safetensors", "max_distance": 2.0, "anchor": {"text": "shapes", "min_cosine": -0.5}}}"#;

#[test]
fn a_domain_refuses_far_pictures_unlike_pictures_and_unknown_words() {
    let folder = with_domain(DOMAIN);
    let domain = open(&folder).unwrap().domain().unwrap().unwrap();
    assert_eq!((domain.name(), domain.advice()), ("shapes", "ask elsewhere"));
    let encoder = Encoder("e".to_owned());
    let check =
        |values: [f32; 2]| domain.check_embedding(&Embedding::normalised(values.to_vec()), &encoder).unwrap();
    assert_eq!(check([1.0, 0.0]), None);
    // Off by (-2, 0): sqrt(4 * 4).
    assert_eq!(check([-1.0, 0.0]), Some(OutOfDomain::Distance { distance: 4.0, limit: 2.0 }));
    let picture = Picture::new(image::RgbImage::new(2, 2));
    assert_eq!(domain.check_picture(&picture, &encoder, &Call::default()).unwrap(), check([-1.0, 0.0]));
    // Near enough and on the wrong side of the anchor.
    let Some(OutOfDomain::Anchor { cosine, limit: -0.5 }) = check([0.8, -0.6]) else {
        panic!("unlike the anchor")
    };
    assert!((cosine + 0.6).abs() < 1e-6);
    assert!(domain.check_embedding(&Embedding::normalised(vec![1.0; 3]), &encoder).is_err());
    assert!(domain.check_embedding(&Embedding::normalised(vec![f32::NAN; 2]), &encoder).is_err());
    assert!(domain.unknown_words(["A circle's red.", "a red circle"]).is_empty());
    assert_eq!(domain.unknown_words(["A Square is red", "caf\u{e9}, square"]), ["caf\u{e9}", "square"]);
}

#[test]
fn malformed_domains_are_refused() {
    let refused = |json: String| open(&with_domain(&json)).unwrap().domain().expect_err("a refusal");
    assert_eq!(refused(DOMAIN.replace("advice", "advise")).kind(), ModelErrorKind::Malformed);
    assert_eq!(refused(DOMAIN.replace("domain.safetensors", "domain.bin")).kind(), ModelErrorKind::Malformed);
    assert_eq!(
        refused(DOMAIN.replace("domain.safetensors", "gone.safetensors")).kind(),
        ModelErrorKind::MissingFile
    );
}

#[test]
fn a_fingerprint_takes_whole_folders() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("unet/deep")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("index.json", "{}");
    write("unet/a.txt", "a");
    write("unet/deep/b.txt", "b");
    let tree = FileTree::open(folder.path()).unwrap();
    assert_eq!(tree.list().unwrap(), ["index.json", "unet/a.txt", "unet/deep/b.txt"]);
    let print = || cluegate_models::fingerprint(&tree, &["index.json", "unet", "absent"]).unwrap();
    let before = print();
    static FILES: &[(&str, &[u8])] =
        &[("unet/deep/b.txt", b"b"), ("index.json", b"{}"), ("unet/a.txt", b"a")];
    let inside = FileTree::embedded("inside", FILES);
    assert_eq!(before, cluegate_models::fingerprint(&inside, &["index.json", "unet"]).unwrap());
    write("unet/deep/b.txt", "c");
    assert_ne!(before, print());
}
