//! The C header says what the tables are: a C compiler holds each field's place against it.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use cluegate_abi::table::{self, LAYOUTS};
use cluegate_abi::{ErrorCode, HEADER, MAJOR, MINOR};

fn compile(folder: &Path, source: &str) -> Output {
    std::fs::write(folder.join("cluegate_plugin.h"), HEADER).unwrap();
    std::fs::write(folder.join("check.c"), source).unwrap();
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut command = Command::new(compiler);
    command.args(["-std=c11", "-Wall", "-Wextra", "-Werror"]);
    command.args(["-c", "check.c", "-o", "check.o"]).current_dir(folder).output().unwrap()
}

fn assertions() -> String {
    let mut source = String::from("#include \"cluegate_plugin.h\"\n");
    let mut say = |condition: String| {
        writeln!(source, "_Static_assert({condition}, \"{condition}\");").unwrap();
    };
    for layout in LAYOUTS {
        say(format!("sizeof({}) == {}", layout.name, layout.size));
        for (field, offset) in layout.fields {
            say(format!("offsetof({}, {field}) == {offset}", layout.name));
        }
    }
    for code in ErrorCode::ALL {
        say(format!("CG_{} == {}", code.as_str().to_uppercase(), code.number()));
    }
    for (name, value) in [
        ("OK", table::OK),
        ("ABORTED", table::ABORTED),
        ("CONTINUE", table::CONTINUE),
        ("ABORT", table::ABORT),
        ("FLAG_CONCURRENT", table::FLAG_CONCURRENT as i32),
        ("FLAG_SOURCE", table::FLAG_SOURCE as i32),
        ("MAJOR", MAJOR as i32),
        ("MINOR", MINOR as i32),
    ] {
        say(format!("CG_{name} == {value}"));
    }
    source
}

/// The fields of each structure by the header's text, in order: a field that the tables do not have would else hide in a gap.
fn fields_of_header(name: &str) -> Vec<String> {
    let begin = HEADER.find(&format!("typedef struct {name} {{")).unwrap();
    let body = &HEADER[begin..][..HEADER[begin..].find(&format!("}} {name};")).unwrap()];
    let mut bare = String::new();
    let mut rest = body.split_once('{').unwrap().1;
    while let Some((before, after)) = rest.split_once("/*") {
        bare.push_str(before);
        rest = after.split_once("*/").unwrap().1;
    }
    bare.push_str(rest);
    let declarations = bare.split(';').map(str::trim).filter(|one| !one.is_empty());
    let name = |one: &str| match one.split_once("(*") {
        Some((_, function)) => function.split_once(')').unwrap().0.to_owned(),
        None => one.rsplit([' ', '*']).next().unwrap().to_owned(),
    };
    declarations.map(name).collect()
}

#[test]
fn every_field_lies_where_c_looks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = assertions();
    assert!(source.lines().count() > 120, "{source}");
    let output = compile(folder.path(), &source);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_field_in_another_place_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let wrong =
        assertions().replacen("offsetof(cg_picture, stride) == 8", "offsetof(cg_picture, stride) == 16", 1);
    assert!(wrong.contains("== 16"));
    let output = compile(folder.path(), &wrong);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("offsetof(cg_picture, stride)"), "{said}");
}

#[test]
fn the_header_names_the_same_fields_in_the_same_order() {
    for layout in LAYOUTS {
        let names: Vec<&str> = layout.fields.iter().map(|(name, _)| *name).collect();
        assert_eq!(fields_of_header(layout.name), names, "{}", layout.name);
    }
    assert_eq!(HEADER.matches("typedef struct ").count(), LAYOUTS.len());
}
