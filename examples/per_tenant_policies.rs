//! One picture under the policies of two tenants: what one may see, the other may not, or sees with a part hidden.
//!
//! Run it with `cargo run --release --example per_tenant_policies -- scene.png`. The policies are in
//! `examples/policies/childrens-service.toml`; the embedded models know emoji scenes only.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use cluegate::Engine;
use cluegate::gate::{Gate, MemberOutcome, MemoryLog, Policies, RequestInfo};
use cluegate::perception::{DecodeOptions, decode};

/// Who may see what: see the comments in the file.
const POLICY: &str = include_str!("policies/childrens-service.toml");

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which picture? give the path of a PNG, JPEG or WebP file")?;
    for outcome in judge_for(&["readers", "illustrators"], Path::new(&path))? {
        let decision = outcome.decision();
        println!("{}: {} ({})", decision.tenant, decision.message, decision.reason.as_str());
    }
    Ok(())
}

/// What becomes of the picture at `path` for each tenant.
pub(crate) fn judge_for(tenants: &[&str], path: &Path) -> Result<Vec<MemberOutcome>, Box<dyn Error>> {
    let engine = Engine::open(None)?;
    let policies = Policies::from_toml(POLICY, "childrens-service.toml")?;
    let gate = Gate::new(&policies, Arc::new(engine.judges(false)), Arc::new(MemoryLog::new(16)))?;
    let picture = decode(&std::fs::read(path)?, &DecodeOptions::default())?;
    let mut outcomes = Vec::new();
    for tenant in tenants {
        // There is a finished picture and no generator: one try.
        let request = RequestInfo { max_tries: Some(1), ..RequestInfo::new(*tenant, "", 0, 1) };
        let mut session = gate.session(request)?;
        let told = session.finished(0, picture.clone())?.into_outcome();
        outcomes.push(told.map_err(|again| format!("asked to draw again: {}", again.message))?);
        session.close();
    }
    Ok(outcomes)
}
