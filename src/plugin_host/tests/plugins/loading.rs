//! From a file to a plugin, and what is said of files that are none.

use cluegate_gate::DrawSource;
use cluegate_perception::Call;
use cluegate_plugin_host::{Drawing, HostError, Plugin, Search, Unwatched};
use serde_json::json;

use crate::support::{compile, examples, open, picture, search, spec, unruly};

#[test]
fn a_plugin_in_c_is_loaded_and_does_all_that_it_says() {
    let folder = tempfile::tempdir().unwrap();
    compile(folder.path(), "tally", "tally.c", &["-Werror"]);
    let plugin = Plugin::open(spec("tally", json!({})), &search(folder.path())).unwrap();
    let described = plugin.description();
    assert_eq!((&*described.name, &*described.abi), ("tally", "1.2"));
    assert_eq!(described.abilities, ["classify", "answer", "redact"]);
    let call = Call::default();
    let found = plugin.classify(&picture([51, 51, 51]), &call).unwrap();
    assert_eq!((&*found.labels[0].name, found.labels[0].region), ("bright", Some([3.0, 1.0, 4.0, 2.0])));
    assert!(!found.flagged && (0.2..0.21).contains(&found.score), "{found:?}");
    let yes = plugin.answer(Some(&picture([51, 51, 51])), "the picture is bright", &call).unwrap();
    assert!((0.2..0.21).contains(&yes.ratio()), "{yes:?}");
    assert_eq!(plugin.answer(None, "the picture is bright", &call).unwrap().ratio(), 0.5);
    let refused = plugin.answer(None, "the picture is loud", &call).unwrap_err();
    assert!(refused.to_string().contains("expected the statement"), "{refused}");
    let change = cluegate_plugin_host::Change { regions: vec![[3.0, 1.0, 4.0, 2.0]], ..Default::default() };
    let redacted = plugin.redact(&picture([51, 51, 51]), change, &call).unwrap();
    assert_eq!(redacted.pixels().get_pixel(3, 1).0, [128; 3]);
    assert_eq!(redacted.pixels().get_pixel(4, 1).0, [51; 3]);
    // The same plugin twice: instances of their own, one library.
    let again = Plugin::open(spec("tally", json!({})), &search(folder.path())).unwrap();
    assert_eq!(again.fingerprint(), plugin.fingerprint());
    let other = Plugin::open(spec("tally", json!({ "note": 1 })), &search(folder.path())).unwrap();
    assert_ne!(other.fingerprint(), plugin.fingerprint());
}

#[test]
fn a_plugin_of_the_version_before_still_draws() {
    let folder = tempfile::tempdir().unwrap();
    compile(folder.path(), "stripes", "abi-1.0/stripes.c", &["-Werror"]);
    let plugin = Plugin::open(spec("stripes", json!({})), &search(folder.path())).unwrap();
    assert_eq!(plugin.description().abi, "1.0");
    assert_eq!(plugin.description().abilities, ["generate"]);
    let call = Call::default();
    // It has no `check`, which came later: it has nothing against anything.
    plugin.check(Drawing { sampler: Some("DDIM".to_owned()), ..Drawing::default() }, &call).unwrap();
    let drawing = Drawing { prompt: "stripes".to_owned(), width: Some(8), ..Drawing::default() };
    let drawn = plugin.generate(drawing, &call, &mut Unwatched).unwrap().unwrap();
    assert_eq!((drawn.width(), drawn.height()), (8, 16));
    assert_eq!([1, 2].map(|x| drawn.pixels().get_pixel(x, 0).0), [[220; 3], [0, 40, 80]]);
}

#[test]
fn a_plugin_that_knows_of_no_pictures_to_begin_from_is_given_none() {
    let folder = tempfile::tempdir().unwrap();
    compile(folder.path(), "checked", "abi-1.1/checked_stripes.c", &["-Werror"]);
    let plugin = Plugin::open(spec("checked", json!({})), &search(folder.path())).unwrap();
    assert_eq!((plugin.description().abi.as_str(), plugin.description().from_pictures), ("1.1", false));
    let call = Call::default();
    let drawing = || Drawing { width: Some(8), ..Drawing::default() };
    plugin.check(drawing(), &call).unwrap();
    let sampled = Drawing { sampler: Some("DDIM".to_owned()), ..drawing() };
    assert!(plugin.check(sampled, &call).unwrap_err().to_string().contains("it has no samplers"));
    assert!(plugin.generate(drawing(), &call, &mut Unwatched).unwrap().is_some());
    let source = DrawSource { picture: picture([1, 2, 3]), mask: None, strength: None };
    let error = plugin.generate_from(drawing(), &source, &call, &mut Unwatched).unwrap_err();
    assert_eq!(error.to_string(), "plugin checked cannot draw from a picture; it can generate");
}

#[test]
fn what_is_wrong_with_a_library_is_said_so_that_it_can_be_mended() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (number, says) in [
        (1, "its table cg_plugin says that it has 24 bytes, expected at least"),
        (2, "its tables are of version 7.2, expected 1.x"),
        (3, "its name is \"Not A Name\", expected lower-case letters"),
        (4, "name no function that draws, judges or acts"),
        (5, "exports no function cluegate_plugin_1"),
        (6, "not_there_at_all"),
        (8, "it refuses this host of version 1.2: it does not like this host"),
    ] {
        let name = format!("wrong{number}");
        compile(folder, &name, "tally.c", &[&format!("-DWRONG={number}")]);
        let error = Plugin::open(spec(&name, json!({})), &search(folder)).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(&name), "{number}: {error}");
    }
    // A library that it needs, and that is gone.
    let needed = folder.join("libneeded.c");
    std::fs::write(&needed, "int from_the_missing_one(void) { return 0; }").unwrap();
    let needed_library = folder.join("libneeded-by-tally.so");
    let mut cc = std::process::Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&needed_library).arg(&needed);
    assert!(cc.status().unwrap().success());
    let link = format!("-L{}", folder.display());
    compile(folder, "wrong7", "tally.c", &["-DWRONG=7", &link, "-lneeded-by-tally"]);
    std::fs::remove_file(&needed_library).unwrap();
    let error = Plugin::open(spec("wrong7", json!({})), &search(folder)).unwrap_err();
    let HostError::MissingLibrary { libraries, .. } = &error else { panic!("{error}") };
    assert_eq!(*libraries, ["libneeded-by-tally.so"]);
    // A file that is no library at all.
    std::fs::write(folder.join("libtext.so"), "not a library").unwrap();
    let error = Plugin::open(spec("text", json!({})), &search(folder)).unwrap_err();
    assert!(matches!(&error, HostError::Load { .. }), "{error}");
}

#[test]
fn only_what_is_allowed_is_loaded() {
    let folders = vec![examples().to_path_buf()];
    let error = Plugin::open(unruly(""), &Search::new(folders.clone(), [])).unwrap_err();
    let HostError::NotAllowed { sha256, .. } = &error else { panic!("{error}") };
    let allowed = Plugin::open(unruly(""), &Search::new(folders, [sha256.clone()])).unwrap();
    assert_eq!(allowed.sha256(), sha256);
}

#[test]
fn configurations_are_held_against_the_schema_and_by_the_plugin() {
    let refused =
        |library: &str, config| Plugin::open(spec(library, config), &search(examples())).unwrap_err();
    let error = refused("colours", json!({ "color": "red" })).to_string();
    assert!(error.contains("unknown key `color` (did you mean `colour`?)"), "{error}");
    let error = refused("colours", json!({})).to_string();
    assert!(error.contains("lacks the key `colour`"), "{error}");
    let error = refused("colours", json!({ "colour": "mauve" })).to_string();
    assert!(error.contains("(config): `colour` is \"mauve\", expected red"), "{error}");
    let error = refused("unruly", json!({ "does": "refuse" })).to_string();
    assert!(error.contains("it was told to refuse"), "{error}");
    let error = refused("unruly", json!({ "does": "panic-at-once" })).to_string();
    assert!(error.contains("(panic): it panicked: it was told to panic at once"), "{error}");
    let slow = cluegate_plugin_host::Spec {
        open_deadline: std::time::Duration::from_millis(50),
        ..unruly("hang-at-once")
    };
    let error = Plugin::open(slow, &search(examples())).unwrap_err();
    assert!(matches!(error, HostError::TimedOut { .. }), "{error}");
    assert!(open(spec("colours", json!({ "colour": "red" }))).can("classify"));
}
