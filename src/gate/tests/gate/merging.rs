//! Properties of reading and merging: any text is answered, and a key says what the last table says that names it.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluegate_gate::policy::{PieceKind, PolicyPiece};
use cluegate_gate::{Folder, Policies};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::inheritance::{piece, tenant};

/// Keys with values of the right type, of which every layer of a chain names some.
fn keys() -> impl Strategy<Value = BTreeMap<&'static str, String>> {
    let number = |low: u32, high: u32| (low..=high).prop_map(|n| n.to_string());
    let word =
        |words: &'static [&'static str]| prop::sample::select(words).prop_map(|word| format!("\"{word}\""));
    let action = || word(&["allow", "redact", "regenerate", "hold", "block"]);
    let one = prop_oneof![
        (Just("tries"), number(1, 100)),
        (Just("priority"), number(0, 9)),
        (Just("mode"), word(&["enforce", "shadow"])),
        (Just("previews"), vec(1_u32..9, 0..3).prop_map(|points| format!("{points:?}"))),
        (Just("action.default"), action()),
        (Just("action.severity.low"), action()),
        (Just("action.rule.armed"), action()),
        (Just("redact.grow"), (0_u32..20).prop_map(|tenths| format!("{:?}", f64::from(tenths) / 10.0))),
        (Just("limits.max_pictures"), number(1, 50)),
        (Just("quota.pictures_per_day"), number(1, 1000)),
        (Just("quota.price_per_judge_second"), Just("0.5".to_owned())),
        (Just("retention.pictures"), word(&["none", "withheld", "all"])),
        (Just("client.evidence"), prop_oneof![Just("true".to_owned()), Just("false".to_owned())]),
    ];
    vec(one, 0..6).prop_map(|pairs| pairs.into_iter().collect::<BTreeMap<_, _>>())
}

fn text(keys: &BTreeMap<&str, String>) -> String {
    keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
}

fn folder() -> Arc<Folder> {
    Arc::new(Folder::new(""))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_last_table_that_names_a_key_has_its_say(layers in vec(keys(), 1..5), model in keys(), inner in keys()) {
        // The root is the first layer; the tenant is the last.
        let mut pieces: Vec<PolicyPiece> = Vec::new();
        let last = layers.len() - 1;
        for (level, keys) in layers.iter().enumerate() {
            let extends = level.checked_sub(1).map_or_else(String::new, |below| format!("extends = \"l{below}\"\n"));
            let mut whole = extends + &text(keys);
            if level == 0 {
                whole += &format!("[model.\"sd*\"]\n{}", text(&model));
            }
            if level == last && level > 0 {
                whole += &format!("[model.\"sd*\"]\n{}", text(&inner));
            }
            pieces.push(match level == last {
                true => tenant("t", &whole),
                false => piece(PieceKind::Template, &format!("l{level}"), &whole),
            });
        }
        let merged = Policies::from_pieces(pieces, folder()).unwrap();
        let mut flat: BTreeMap<&str, String> = BTreeMap::new();
        layers.iter().for_each(|keys| flat.extend(keys.clone()));
        let mut of_model = flat.clone();
        of_model.extend(model);
        if last > 0 {
            of_model.extend(inner);
        }
        for (name, keys) in [(None, flat), (Some("sdxl"), of_model)] {
            let alone = Policies::from_pieces([tenant("t", &text(&keys))], folder()).unwrap();
            let (one, other) = (merged.tenant("t").unwrap().for_model(name), alone.get("t").unwrap());
            prop_assert_eq!(&***one, &***other);
            // And the explanation has the same values.
            let explained = merged.explain("t", name).unwrap();
            let values: BTreeMap<String, String> = explained.into_iter().map(|all| (all.key, all.value)).collect();
            for (key, value) in keys {
                prop_assert_eq!(values.get(key), Some(&value));
            }
        }
    }

    #[test]
    fn a_change_gives_what_reading_everything_gives(
        first in btree_map(0_usize..6, keys(), 1..5),
        changed in btree_map(0_usize..6, keys(), 0..3),
        base in [keys(), keys()],
        removed in vec(0_usize..6, 0..2),
    ) {
        let of = |number: &usize, keys: &BTreeMap<&str, String>| {
            tenant(&format!("t{number}"), &format!("extends = \"base\"\n{}", text(keys)))
        };
        let template = |keys: &BTreeMap<&str, String>| piece(PieceKind::Template, "base", &text(keys));
        let [before, after] = base;
        let pieces = std::iter::once(template(&before)).chain(first.iter().map(|(n, keys)| of(n, keys)));
        let policies = Policies::from_pieces(pieces, folder()).unwrap();
        let names: Vec<String> = removed.iter().map(|number| format!("t{number}")).collect();
        let gone: Vec<(PieceKind, &str)> = names.iter().map(|name| (PieceKind::Tenant, name.as_str())).collect();
        let pieces = std::iter::once(template(&after)).chain(changed.iter().map(|(n, keys)| of(n, keys)));
        let by_change = policies.with_changes(pieces, &gone).unwrap();

        let mut all = first;
        all.retain(|number, _| !removed.contains(number));
        all.extend(changed);
        let pieces = std::iter::once(template(&after)).chain(all.iter().map(|(n, keys)| of(n, keys)));
        let at_once = Policies::from_pieces(pieces, folder()).unwrap();
        prop_assert_eq!(by_change.tenants().collect::<Vec<_>>(), at_once.tenants().collect::<Vec<_>>());
        for name in at_once.tenants() {
            prop_assert_eq!(by_change.tenant(name), at_once.tenant(name));
        }
    }

    #[test]
    fn any_text_is_answered(text in "(\\[(tenant|template)\\.[a-c](\\.(model|canary|quota|parameter|action))?(\\.\"s\\*\")?\\]\n|(extends|tries|share|model|mode|rules) = (\"[a-c]\"|[0-9]|\\[\\]|\\{\\})\n|[ -~]{0,12}\n){0,10}") {
        let piece = PolicyPiece { kind: PieceKind::Tenant, name: "t".to_owned(), origin: "p".to_owned(), text: text.clone() };
        for policies in [Policies::from_toml(&text, "p"), Policies::from_pieces([piece], folder())].into_iter().flatten() {
            for name in policies.tenants() {
                prop_assert!(policies.explain(name, Some("sd")).is_ok());
            }
        }
    }
}
