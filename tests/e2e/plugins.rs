//! Plugins from the command line, and the page that says how to write one, followed literally.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{command, finish, folder};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// The folder of the example plugins, built.
fn examples() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--offline", "--manifest-path"]);
    cargo.arg(Path::new(HERE).join("plugins/examples/Cargo.toml")).arg("--target-dir").arg(&place);
    finish(&mut cargo).expect(0);
    place.join("release")
}

fn plugins(arguments: &[&str]) -> crate::support::Run {
    let mut command = command();
    command.env("CLUEGATE_PLUGIN_PATH", examples());
    finish(command.arg("plugins").args(arguments))
}

#[test]
fn libraries_are_listed_inspected_and_tried() {
    let listed = plugins(&["list", "--format", "json"]).expect(0).json();
    let of = |name: &str| {
        let end = format!("lib{name}.so");
        let all = listed.as_array().expect("a list");
        let found = all.iter().find(|one| one["path"].as_str().is_some_and(|path| path.ends_with(&end)));
        found.expect("a library")["sha256"].as_str().expect("a checksum").to_owned()
    };
    assert!(listed.as_array().expect("a list").iter().all(|one| one["allowed"] == false));
    let refused = plugins(&["inspect", "colours"]).expect(2);
    assert!(
        refused.stderr.contains("is not allowed") && refused.stderr.contains(&of("colours")),
        "{refused:?}"
    );
    let inspected = plugins(&["inspect", "colours", "--allow", &of("colours")]).expect(0).stdout;
    for says in ["colours 0.1.0: Finds a colour", "can: classify, answer", "\"required\": ["] {
        assert!(inspected.contains(says), "{inspected}");
    }
    let allowed = ["--allow", &of("colours"), "--allow", &of("unruly")];
    let colours =
        ["test", "colours", "--set", "{\"colour\": \"red\"}", "--statement", "the picture is mostly red"];
    for isolated in [&[][..], &["--isolated"]] {
        let tried = plugins(&[&colours[..], isolated, &allowed].concat()).expect(0).stdout;
        assert!(tried.contains("ok      classify") && tried.contains("ok      answer"), "{tried}");
    }
    // With a picture of one's own, and one that is none.
    let place = folder();
    let (red, none) = (place.path().join("red.png"), place.path().join("none.png"));
    image::RgbImage::from_pixel(20, 10, image::Rgb([250, 0, 0])).save(&red).expect("a file");
    std::fs::write(&none, "red").expect("a file");
    let with = |file: &Path| {
        let file = file.to_str().expect("a path").to_owned();
        plugins(&[&colours[..], &["--picture", &file, "--format", "json"], &allowed].concat())
    };
    let tried = with(&red).expect(0).json();
    let said = tried["tried"][0]["said"].as_str().expect("words");
    assert_eq!(said, "unsafe 1.000, 1 labels: red 1.000");
    assert!(with(&none).expect(2).stderr.contains("none.png"), "a picture that is none");
    let misbehaves = ["test", "unruly", "--set", "{\"does\": \"crash\"}", "--isolated", "--format", "json"];
    let tried = plugins(&[&misbehaves[..], &allowed].concat()).expect(1).json();
    assert!(tried["tried"][0]["said"].as_str().expect("words").contains("signal 11"), "{tried}");
    let missing = plugins(&["inspect", "colour"]).expect(2).stderr;
    assert!(missing.contains("no plugin library \"colour\"; looked for"), "{missing}");
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn doctor_names_all_libraries_that_a_plugin_lacks_and_how_to_get_them() {
    let place = folder();
    let build = |name: &str, needs: &[&str]| {
        let source = place.path().join("empty.c");
        std::fs::write(&source, "int nothing(void) { return 0; }\n").expect("a file");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"]).arg(place.path().join(name)).arg(&source);
        finish(cc.arg("-L").arg(place.path()).args(needs)).expect(0);
    };
    build("libtorch_cpu.so", &[]);
    build("libc10.so", &[]);
    build("libplugin.so", &["-ltorch_cpu", "-lc10"]);
    for gone in ["libtorch_cpu.so", "libc10.so"] {
        std::fs::remove_file(place.path().join(gone)).expect("a file");
    }
    let doctor = |config: &str| {
        let file = place.path().join("gate.toml");
        let least = "[keys]\nanonymous = \"default\"\n[upstream]\nkind = \"a1111\"\nurl = \"http://127.0.0.1:7860\"\n";
        std::fs::write(&file, format!("{least}{config}")).expect("a file");
        let run = finish(command().args(["doctor", "--format", "json", "--config"]).arg(&file));
        let rows = run.json();
        let rows = rows.as_array().expect("a list").iter().filter(|row| row["what"] == "plugins");
        rows.cloned().collect::<Vec<_>>()
    };
    for config in
        ["[plugins]\npath = [\".\"]\n", "[[plugins.use]]\nname = \"mine\"\nlibrary = \"./libplugin.so\"\n"]
    {
        let found = doctor(config);
        let [row] = &found[..] else { panic!("{found:?}") };
        let (found, fix) = (row["found"].as_str().expect("words"), row["fix"].as_str().expect("words"));
        assert!(
            found.contains("libplugin.so") && found.ends_with("not here: libc10.so, libtorch_cpu.so"),
            "{row}"
        );
        assert!(fix.contains("plugins/torch-diffusers/setup"), "{row}");
    }
    assert_eq!(doctor("")[0]["ok"], true);
}

/// Files and commands of the page, in order: what stands between two fences, with the name in the comment before.
pub(crate) fn steps(page: &str) -> Vec<(Option<String>, String)> {
    let (mut steps, mut file, mut lines) = (Vec::new(), None, page.lines());
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("<!-- file: ").and_then(|rest| rest.strip_suffix(" -->")) {
            file = Some(name.to_owned());
        }
        if line.starts_with("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if file.is_some() || line == "```sh" {
                steps.push((file.take(), text.join("\n") + "\n"));
            }
        }
    }
    steps
}

#[cfg(unix)]
#[test]
fn the_page_on_writing_a_plugin_can_be_followed_literally() {
    let place = folder();
    std::os::unix::fs::symlink(HERE, place.path().join("cluegate")).expect("a link");
    let binary = Path::new(env!("CARGO_BIN_EXE_cluegate")).parent().expect("a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let page = std::fs::read_to_string(Path::new(HERE).join("docs/plugins.md")).expect("the page");
    let (mut files, mut said) = (0, String::new());
    for (file, text) in steps(&page) {
        if let Some(file) = file {
            let file = place.path().join(file);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            std::fs::write(file, text).expect("a file");
            files += 1;
            continue;
        }
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", &text]).current_dir(place.path());
        shell.env("PATH", format!("{}:{path}", binary.display())).env_remove("CARGO_TARGET_DIR");
        said.push_str(&finish(&mut shell).expect(0).stdout);
    }
    assert_eq!(files, 3);
    for says in ["sunny 0.1.0: Tells how bright a picture is.", "ok      classify", "ok      redact"] {
        assert!(said.contains(says), "{said}");
    }
}
