//! The example of docs/policies.md is what the page says of it.

use std::sync::Arc;

use cluegate_gate::policy::{Mode, RedactionMethod, RetainedPictures};
use cluegate_gate::{Gate, MemoryLog, Policies};

use cluegate_gate::fakes::World;

#[test]
fn the_three_tenants_of_the_page() {
    let page = include_str!("../../../../docs/policies.md");
    let at = page.find("[template.service]").unwrap();
    let example = page[at..].split("```").next().unwrap();
    let policies = Policies::from_toml(example, "policy.toml").unwrap();
    assert_eq!(policies.tenants().collect::<Vec<_>>(), ["agency", "atelier", "picture-books"]);

    let books = policies.get("picture-books").unwrap();
    assert_eq!((books.tries, books.limits.max_pictures, books.priority), (2, 8, 7));
    assert_eq!(
        (books.redaction.method, books.retention.pictures),
        (RedactionMethod::Fill, RetainedPictures::Withheld)
    );
    let turbo = policies.tenant("picture-books").unwrap().for_model(Some("sdxl-turbo-1.0"));
    assert_eq!((turbo.tries, turbo.limits.max_pictures, turbo.previews.is_due(5, 10)), (5, 8, true));

    let atelier = policies.get("atelier").unwrap();
    assert_eq!((atelier.mode, atelier.quota.pictures_per_day), (Mode::Shadow, Some(500)));
    assert!(atelier.quota.price(1000, 0.0) > 0.0, "the prices of the template stay");

    assert_eq!(policies.get("agency").unwrap().canary.as_ref().unwrap().share, 0.1);
    // The constitutions are there, and say what the policies ask of them.
    let gate = Gate::new(&policies, Arc::new(World::new([])), Arc::new(MemoryLog::new(1))).unwrap();
    gate.prepare_all().unwrap();
}
