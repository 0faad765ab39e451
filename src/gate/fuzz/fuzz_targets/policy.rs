//! Whatever the text, the reader of policies answers with policies or an error, as a file and as a piece. What it accepts
//! holds its bounds and explains each value. Run with `cargo +nightly fuzz run policy` in `src/gate`.
#![no_main]

use std::sync::Arc;

use cluegate_gate::policy::{PieceKind, PolicyPiece};
use cluegate_gate::{Folder, Policies};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let piece = PolicyPiece {
        kind: PieceKind::Tenant,
        name: "t".to_owned(),
        origin: "fuzz".to_owned(),
        text: text.to_owned(),
    };
    let pieces = Policies::from_pieces([piece], Arc::new(Folder::new("")));
    for policies in [Policies::from_toml(text, "fuzz"), pieces].into_iter().flatten() {
        for tenant in policies.tenants() {
            let all = policies.tenant(tenant).expect("a tenant that is listed has policies");
            for policy in all.all() {
                assert!((1..=100).contains(&policy.tries) && policy.priority <= 9);
                assert!(policy.canary.as_ref().is_none_or(|canary| canary.share > 0.0 && canary.share <= 1.0));
            }
            policies.explain(tenant, Some("sdxl")).expect("a policy that is in force can be explained");
        }
    }
});
