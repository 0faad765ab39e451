//! Models that read text only, on the files made by `goldens/make_text.py`.

use cluegate_models::{FileTree, LoadOptions, ModelErrorKind, Suite, load_judge, load_text};
use cluegate_perception::{
    Call, CompletionRequest, PerceptionErrorKind, Picture, Prefix, Prompt, Reply, VisionLanguageModel,
};
use serde_json::{Value, json};

use crate::harness::{Golden, flatten_rope, relative_gap};

const ALL: [Golden; 4] = [Golden("llama"), Golden("mistral"), Golden("qwen2"), Golden("qwen3")];

mod llama {
    crate::checks::golden_tests!(crate::harness::Golden("llama"));
}

mod mistral {
    crate::checks::golden_tests!(crate::harness::Golden("mistral"));
}

mod qwen2 {
    crate::checks::golden_tests!(crate::harness::Golden("qwen2"));
}

mod qwen3 {
    crate::checks::golden_tests!(crate::harness::Golden("qwen3"));
}

/// Rotary parameters by their older names, the buffer of frequencies saved beside the weights, and the embedding table
/// stored twice where it is the output layer too.
#[test]
fn checkpoints_from_before_transformers_5_load_as_well() {
    for golden in ALL {
        let copy = golden.copy();
        let mut config = copy.json("config.json");
        flatten_rope(&mut config);
        config.as_object_mut().unwrap().remove("layer_types");
        copy.write("config.json", &config.to_string());
        copy.change_tensors(|tensors| {
            let table = tensors["model.embed_tokens.weight"].clone();
            tensors.entry("lm_head.weight".to_owned()).or_insert(table);
            let buffer = tensors["model.norm.weight"].clone();
            tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), buffer);
        });
        golden.assert_logits(&copy.load());
    }
}

/// What transformers does with weights that the configuration is wrong about (`tie_weights` in `modeling_utils.py`).
#[test]
fn an_output_layer_that_is_there_is_used_though_the_configuration_ties_it() {
    let golden = Golden("llama");
    let prompts = &golden.prompts()[..2];
    let expected = golden.model().next_logits(prompts).unwrap();
    let copy = golden.copy();
    assert_eq!(copy.json("config.json")["tie_word_embeddings"], json!(true));
    copy.change_tensors(|tensors| {
        let head = (&tensors["model.embed_tokens.weight"] * -2.0).unwrap();
        tensors.insert("lm_head.weight".to_owned(), head);
    });
    for (found, expected) in copy.load().next_logits(prompts).unwrap().iter().zip(expected) {
        let expected: Vec<f32> = expected.iter().map(|logit| -2.0 * logit).collect();
        assert!(relative_gap(found, &expected) < 1e-6);
    }
}

/// As transformers takes them: some published tokenizers hold added tokens that the model was never given.
#[test]
fn tokens_without_a_row_are_refused_where_they_are_written() {
    let golden = Golden("llama");
    let copy = golden.copy();
    let mut tokenizer = copy.json("tokenizer.json");
    let rows = copy.json("config.json")["vocab_size"].as_u64().unwrap();
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    let mut token = added.last().unwrap().clone();
    assert_eq!(token["id"], rows - 1);
    token["id"] = rows.into();
    token["content"] = "<film>".into();
    token["special"] = false.into();
    added.push(token);
    copy.write("tokenizer.json", &tokenizer.to_string());
    golden.assert_logits(&copy.load());
    let model = copy.load();
    let prompt = Prompt::new(Prefix { picture: None, text: "What is a ".into() }, "<film>?");
    for error in
        [model.next_logits(&[prompt]).unwrap_err(), model.probe("What is a <film>?", None).unwrap_err()]
    {
        assert_eq!(error.kind(), ModelErrorKind::Request);
        assert!(error.to_string().contains("<film>"), "{error}");
    }
}

/// All questions are longer than the context of the training.
#[test]
fn the_scale_of_llama_s_positions_matters() {
    let golden = Golden("llama");
    let prompts = golden.prompts();
    let logits = golden.model().next_logits(&prompts).unwrap();
    let copy = golden.copy();
    let config = copy.json("config.json");
    for (field, value) in [
        ("rope_type", json!("default")),
        ("factor", json!(4.0)),
        ("original_max_position_embeddings", json!(32)),
    ] {
        let mut changed = config.clone();
        changed["rope_parameters"][field] = value;
        copy.write("config.json", &changed.to_string());
        for (found, right) in copy.load().next_logits(&prompts).unwrap().iter().zip(&logits) {
            assert!(relative_gap(found, right) > 1e-3, "{field}");
        }
    }
}

#[test]
fn a_question_about_a_picture_is_refused() {
    for golden in ALL {
        let model = golden.model();
        assert!(!model.sees());
        let picture = Some(Picture::new(image::RgbImage::new(30, 20)));
        let prompt = Prompt::new(Prefix { picture, text: "".into() }, "Is it a cat?");
        let error = model.score(std::slice::from_ref(&prompt), &Call::default()).unwrap_err();
        assert_eq!(error.kind(), PerceptionErrorKind::Request);
        assert!(error.to_string().contains("text only"), "{error}");
        let request = CompletionRequest { prompt, max_tokens: 1 };
        let error = model.complete(&[request], &Call::default()).unwrap_err();
        assert_eq!(error.kind(), PerceptionErrorKind::Request);
    }
}

/// A mixture of experts is another model, and a text model is no judge.
#[test]
fn other_families_are_refused_by_name() {
    for family in ["qwen3_moe", "qwen2_moe", "mixtral", "llama4_text", "gemma3_text"] {
        let error = Golden("qwen3").refused_with("/model_type", family);
        assert_eq!(error.kind(), ModelErrorKind::Unsupported);
        assert!(error.to_string().contains(family) && error.to_string().contains("qwen3,"), "{error}");
    }
    for golden in ALL {
        let tree = FileTree::open(golden.folder().join("model")).unwrap();
        let error = load_judge(&tree, &LoadOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ModelErrorKind::Unsupported);
        assert!(error.to_string().contains("`model_type`"), "{error}");
    }
}

#[test]
fn configurations_that_would_be_computed_wrongly_are_refused() {
    let refused = |name: &'static str, pointer: &str, value: Value| Golden(name).refused_with(pointer, value);
    for (name, pointer, value) in [
        ("llama", "/rope_parameters/rope_type", json!("yarn")),
        ("llama", "/hidden_act", json!("gelu")),
        ("qwen2", "/layer_types", json!(["full_attention", "chunked_attention", "full_attention"])),
    ] {
        assert_eq!(refused(name, pointer, value).kind(), ModelErrorKind::Unsupported, "{pointer}");
    }
    assert_eq!(refused("qwen3", "/num_key_value_heads", 3.into()).kind(), ModelErrorKind::Malformed);
    assert_eq!(refused("llama", "/num_hidden_layers", 2.into()).kind(), ModelErrorKind::UnknownTensor);
    assert_eq!(refused("llama", "/num_hidden_layers", 4.into()).kind(), ModelErrorKind::MissingTensor);
    // An output layer of its own is there, and has no place.
    assert_eq!(refused("llama", "/tie_word_embeddings", false.into()).kind(), ModelErrorKind::MissingTensor);
}

/// Within its window a model is the reference's; a longer question is refused.
#[test]
fn a_sliding_window_bounds_the_question() {
    let golden = Golden("mistral");
    let copy = golden.copy();
    let mut config = copy.json("config.json");
    config["sliding_window"] = 100.into();
    copy.write("config.json", &config.to_string());
    golden.assert_logits(&copy.load());
    config["sliding_window"] = 40.into();
    copy.write("config.json", &config.to_string());
    let model = copy.load();
    for (case, prompt) in golden.cases().iter().zip(golden.prompts()) {
        match model.next_logits(&[prompt]) {
            Ok(_) => assert!(case.tokens.len() <= 40),
            Err(error) => {
                assert!(case.tokens.len() > 40);
                assert_eq!(error.kind(), ModelErrorKind::Request);
            }
        }
    }
}

#[test]
fn a_suite_may_have_a_text_model() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(folder.path().join("models.toml"), text).unwrap();
    let open = || Suite::open(&FileTree::open(folder.path()).unwrap()).unwrap();
    let section =
        |name: &'static str| format!("[text]\nfolder = {:?}\n", Golden(name).folder().join("model"));
    write(&section("qwen3"));
    let suite = open();
    let text = suite.text().unwrap();
    assert_eq!(text.fingerprint(), Golden("qwen3").model().fingerprint());
    assert!(std::sync::Arc::ptr_eq(&text, &suite.text().unwrap()));
    assert!(suite.judge().err().unwrap().to_string().contains("no section [judge]"));
    // A judge reads text as well.
    write(&section("qwen2_vl"));
    let prompt = Prompt::new(Prefix { picture: None, text: "".into() }, "Is it a cat?");
    assert_eq!(open().text().unwrap().score(&[prompt], &Call::default()).unwrap().len(), 1);
    write("");
    assert!(open().text().err().unwrap().to_string().contains("no section [text]"));
}

/// The files of the slow tokenizer, without `tokenizer.json`, give the same tokens.
#[test]
fn a_vocabulary_with_merges_is_read_as_well() {
    for golden in [Golden("qwen2"), Golden("qwen3")] {
        let copy = golden.copy();
        let tokenizer = copy.json("tokenizer.json");
        let merges = tokenizer["model"]["merges"].as_array().unwrap().iter();
        let pair = |pair: &Value| {
            let part = |index: usize| pair[index].as_str().unwrap();
            pair.as_str().map_or_else(|| format!("{} {}\n", part(0), part(1)), |line| format!("{line}\n"))
        };
        copy.write("merges.txt", &format!("#version: 0.2\n{}", merges.map(pair).collect::<String>()));
        copy.write("vocab.json", &tokenizer["model"]["vocab"].to_string());
        let mut config = copy.json("tokenizer_config.json");
        let added = tokenizer["added_tokens"].as_array().unwrap().iter();
        config["added_tokens_decoder"] = added
            .map(|token| (token["id"].to_string(), token.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        config["tokenizer_class"] = "Qwen2Tokenizer".into();
        copy.write("tokenizer_config.json", &config.to_string());
        copy.remove("tokenizer.json");
        let model = load_text(&FileTree::open(copy.path()).unwrap(), &LoadOptions::default()).unwrap();
        for case in golden.cases() {
            assert_eq!(model.prompt_tokens(&golden.prompt(&case)).unwrap(), case.tokens, "{}", case.name);
        }
    }
}

/// The file of `<think>` does not call it special, and it is one token all the same.
#[test]
fn marks_are_refused_whoever_calls_them_special_and_wherever_they_are_cut() {
    let model = Golden("qwen3").model();
    let ask = |prefix: &str, suffix: &str| Prompt::new(Prefix { picture: None, text: prefix.into() }, suffix);
    let reply = |assistant: &str, user: &str| {
        let mut prompt = ask("What is it?", "");
        prompt.turns.push(Reply { assistant: assistant.to_owned(), user: user.to_owned() });
        prompt
    };
    for (prompt, mark) in [
        (ask("What is a ", "<think>?"), "`<think>`"),
        (ask("What is a <|e", "nd|>?"), "`<|end|>`"),
        (reply("A cat.", "</think> Is it?"), "`</think>`"),
        (reply("A cat.<|end|>", "Is it?"), "`<|end|>`"),
    ] {
        let error = model.next_logits(&[prompt]).unwrap_err();
        assert_eq!(error.kind(), ModelErrorKind::Request);
        assert!(error.to_string().contains(mark), "{mark}: {error}");
    }
    // What the model itself has written is asked about.
    model.next_logits(&[reply("<think>A cat.</think> A cat.", "Is it?")]).unwrap();
}
