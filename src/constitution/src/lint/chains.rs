//! Lints on the logic of a rule: its chain and its exception as formulas over facts.

use std::collections::{BTreeSet, HashMap};

use super::words::{is_negative, literal, normal};
use super::{Chain, Found, Subject};
use crate::rule::{Precondition, Rule};

/// Most distinct facts of a rule for which every combination is tried: 65,536 of them. Beyond it only links are
/// compared.
const MAX_FACTS: usize = 16;

/// A fact by its number, affirmed or denied.
type Literal = (usize, bool);

/// A chain over numbered facts: every link needs one of its literals.
type Formula = Vec<Vec<Literal>>;

pub(super) fn check(index: usize, rule: &Rule, found: &mut Found<'_>) {
    for chain in [Chain::Precondition, Chain::Unless] {
        for (link, precondition) in chain.of(rule).iter().enumerate() {
            repeated(index, chain, link, precondition, found);
            always_holds(Subject::Link(index, chain, link), precondition, found);
        }
        implied(index, chain, chain.of(rule), found);
    }
    let statements = rule.preconditions.iter().flat_map(|link| &link.any);
    if statements.clone().all(|statement| is_negative(&statement.text)) {
        let message = "every statement of its chain is a negation; ask first for something that is visible";
        found.add("C006", Subject::Rule(index), message.to_owned());
    }
    logic(index, rule, found);
}

/// The same statement twice in one link.
fn repeated(rule: usize, chain: Chain, link: usize, precondition: &Precondition, found: &mut Found<'_>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (at, statement) in precondition.any.iter().enumerate() {
        if let Some(first) = seen.insert(normal(&statement.text), at) {
            let message = format!(
                "the statement {:?} repeats statement {} of the same link",
                statement.text,
                first + 1
            );
            found.add("C001", Subject::Statement(rule, chain, link, at), message);
        }
    }
}

/// A statement beside its own negation.
fn always_holds(subject: Subject, precondition: &Precondition, found: &mut Found<'_>) {
    let literals: Vec<_> = precondition.any.iter().map(|statement| literal(&statement.text)).collect();
    let denied = |(fact, affirmed): &(String, bool)| literals.contains(&(fact.clone(), !affirmed));
    if let Some(at) = literals.iter().position(denied) {
        let message = format!(
            "the link holds whatever a picture shows: it has {:?} and its negation",
            precondition.any[at].text
        );
        found.add("C004", subject, message);
    }
}

fn statements(link: &Precondition) -> BTreeSet<String> {
    link.any.iter().map(|statement| normal(&statement.text)).collect()
}

/// A link that has all statements of another: it holds wherever the other does.
fn implied(rule: usize, chain: Chain, links: &[Precondition], found: &mut Found<'_>) {
    let sets: Vec<_> = links.iter().map(statements).collect();
    for (at, set) in sets.iter().enumerate() {
        let implies = |(other, smaller): &(usize, &BTreeSet<String>)| {
            *other != at && smaller.is_subset(set) && (*smaller != set || *other < at)
        };
        if let Some((other, _)) = sets.iter().enumerate().find(implies) {
            let message =
                format!("link {} of `{}` holds wherever link {} does", at + 1, chain.as_str(), other + 1);
            found.add("C002", Subject::Link(rule, chain, at), message);
        }
    }
}

fn formula(chain: &[Precondition], facts: &mut HashMap<String, usize>) -> Formula {
    let link = |link: &Precondition| {
        let literal = |text: &str| {
            let (fact, affirmed) = literal(text);
            let next = facts.len();
            (*facts.entry(fact).or_insert(next), affirmed)
        };
        link.any.iter().map(|statement| &*statement.text).map(literal).collect()
    };
    chain.iter().map(link).collect()
}

fn holds(formula: &Formula, world: u32) -> bool {
    formula.iter().all(|link| link.iter().any(|(fact, affirmed)| (world >> fact & 1 == 1) == *affirmed))
}

/// Tries every combination of facts.
fn logic(index: usize, rule: &Rule, found: &mut Found<'_>) {
    let mut facts = HashMap::new();
    let chain = formula(&rule.preconditions, &mut facts);
    let unless = formula(&rule.unless, &mut facts);
    if facts.len() > MAX_FACTS {
        return;
    }
    let worlds = (0..1_u32 << facts.len()).filter(|world| holds(&chain, *world));
    let (mut held, mut excepted) = (0_u32, 0_u32);
    for world in worlds {
        held += 1;
        excepted += u32::from(!unless.is_empty() && holds(&unless, world));
    }
    if held == 0 {
        let message = "no picture can violate it: its chain asks for a fact and for its negation";
        found.add("C003", Subject::Rule(index), message.to_owned());
    } else if held == excepted {
        let message = "no picture can violate it: its exception holds wherever its chain does";
        found.add("C003", Subject::Rule(index), message.to_owned());
    } else if excepted == 0 && !unless.is_empty() {
        let message = "the exception never applies: it contradicts the chain, or itself";
        found.add("C005", Subject::Link(index, Chain::Unless, 0), message.to_owned());
    } else if let Some(link) = rule.unless.iter().position(|link| {
        let set = statements(link);
        rule.preconditions.iter().any(|precondition| statements(precondition).is_subset(&set))
    }) {
        let message =
            format!("link {} of `unless` holds wherever the chain does, so it excludes nothing", link + 1);
        found.add("C002", Subject::Link(index, Chain::Unless, link), message);
    }
}

/// Rules that say the same.
pub(super) fn check_duplicates(found: &mut Found<'_>) {
    let mut seen: HashMap<_, usize> = HashMap::new();
    let rules = found.constitution.rules();
    for (index, rule) in rules.iter().enumerate() {
        let sets = |chain: &[Precondition]| chain.iter().map(statements).collect::<BTreeSet<_>>();
        let first = *seen.entry((sets(&rule.preconditions), sets(&rule.unless))).or_insert(index);
        if first != index {
            let message = format!("its chain and exception are those of rule `{}`", rules[first].id);
            found.add("C007", Subject::Rule(index), message);
        }
    }
}
