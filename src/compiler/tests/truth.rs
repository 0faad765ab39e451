//! The truth tables of the fourteen rules of `general`, against the chains that were compiled by hand.

#![allow(clippy::unwrap_used, clippy::panic)]

use cluegate_compiler::grammar::Formula;
use cluegate_compiler::split;
use cluegate_compiler::truth::{self, Difference, Truth};
use cluegate_constitution::Constitution;

fn tables() -> Vec<Truth> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chains/general.toml"));
    truth::parse(&text.unwrap(), "general.toml").unwrap_or_else(|error| panic!("{error}"))
}

fn chains() -> Vec<Formula> {
    let general = Constitution::shipped("general").unwrap();
    general.rules().iter().map(truth::chain_of).collect()
}

#[test]
fn each_line_of_the_prose_has_its_table_in_order() {
    let general = Constitution::shipped("general").unwrap();
    let ids: Vec<&str> = general.rules().iter().map(|rule| rule.id.as_str()).collect();
    let tables = tables();
    assert_eq!(tables.iter().map(Truth::id).collect::<Vec<_>>(), ids);
    let split = split(Constitution::shipped_prose("general").unwrap()).unwrap();
    assert_eq!(split.rules.len(), ids.len(), "{split:#?}");
    // The heading.
    assert_eq!(split.left_out.len(), 1, "{split:#?}");
}

#[test]
fn the_chains_compiled_by_hand_are_right() {
    let wrong = |(table, chain): (&Truth, Formula)| {
        table.compare(&chain).err().map(|difference| format!("{}: {difference}", table.id()))
    };
    let wrong: Vec<String> = tables().iter().zip(chains()).filter_map(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a compiler is likely to get wrong is told apart from what is right.
#[test]
fn a_chain_without_its_finding_or_exception_is_wrong() {
    let differs = |table: &Truth, chain: &Formula, what: &str| {
        let result = table.compare(chain);
        assert!(matches!(result, Err(Difference::Table { .. })), "{}, {what}: {result:?}", table.id());
    };
    let mut exceptions = 0;
    for (table, chain) in tables().iter().zip(chains()) {
        // The finding stands last.
        let mut without = chain.clone();
        without.preconditions.pop();
        if !without.preconditions.is_empty() {
            differs(table, &without, "without its last link");
        }
        if !chain.unless.is_empty() {
            exceptions += 1;
            differs(table, &Formula { unless: vec![], ..chain.clone() }, "without its exception");
        }
        // One of several findings, and several findings that all have to be there.
        if let Some(last) =
            chain.preconditions.last().filter(|last| last.len() > 1 && table.id() != "sexual-act")
        {
            let mut fewer = chain.clone();
            fewer.preconditions.pop();
            fewer.preconditions.push(vec![last[0].clone()]);
            differs(table, &fewer, "with one of its findings");
            let mut all = chain.clone();
            all.preconditions.pop();
            all.preconditions.extend(last.iter().map(|statement| vec![statement.clone()]));
            differs(table, &all, "with all of its findings");
        }
        // A subject that the rule does not ask for.
        let mut more = chain.clone();
        more.preconditions.push(vec!["a woman is visible".to_owned()]);
        if table.id() != "bare-breasts" {
            differs(table, &more, "with a woman");
        }
    }
    assert_eq!(exceptions, 3);
}

/// Other wordings and other cuts that a right compilation may have.
#[test]
fn right_chains_in_other_words_are_right() {
    let right = [
        ("genitalia", "[people are visible] and [the person's genitals are exposed]"),
        ("sexual-act", "[at least two people are visible] and [a sexual act is taking place]"),
        (
            "bare-breasts",
            "[a woman is visible] and [the woman is topless] unless [the woman is breastfeeding a baby]",
        ),
        (
            "spread-legs",
            "[a person is visible] and [the person is wearing only underwear] and [the legs of the person are spread wide apart]",
        ),
        (
            "deadly-injury",
            "[[people are visible] or [animals are visible]] and [the body has bloody injuries] and \
             [the injuries indicate imminent death]",
        ),
        ("body-on-fire", "[[a person is on fire] or [an animal is on fire]]"),
        (
            "severed-body-part",
            "[[a human head is severed] or [a human limb is severed from the body]] unless \
             [[the body part belongs to a doll] or [the body part belongs to a doll, a statue or a mannequin]]",
        ),
        (
            "burnt-body",
            "[[a person is charred] or [an animal is charred]] unless [the animal is cooked as food]",
        ),
        ("eating-human-flesh", "[[a person is eating human flesh] or [an animal is eating human flesh]]"),
        ("corpse", "[a human corpse is visible] and [the face of the corpse is visible]"),
    ];
    let tables = tables();
    for (id, chain) in right {
        let table = tables.iter().find(|table| table.id() == id).unwrap();
        let result = table.compare(&Formula::parse(chain).unwrap());
        assert_eq!(result, Ok(()), "{id}");
    }
}
