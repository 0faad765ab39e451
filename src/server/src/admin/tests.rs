#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// Method and path of every operation of the document.
fn named(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        METHODS
            .iter()
            .filter(|method| item.get(**method).is_some())
            .map(|method| (method.to_uppercase(), path.clone()))
    });
    operations.collect()
}

#[test]
fn every_route_is_named_in_the_document_and_no_other() {
    let routed = routes().into_iter().flat_map(|route| {
        route.methods.iter().map(move |method| ((*method).to_owned(), route.path.to_owned()))
    });
    let routed: BTreeSet<(String, String)> = routed.collect();
    let open = ["/healthz", "/openapi.json"];
    let document = openapi::document().unwrap();
    let named: BTreeSet<_> =
        named(&document).into_iter().filter(|(_, path)| !open.contains(&path.as_str())).collect();
    let (unnamed, absent): (Vec<_>, Vec<_>) =
        (routed.difference(&named).collect(), named.difference(&routed).collect());
    assert!(
        unnamed.is_empty() && absent.is_empty(),
        "not in openapi.json: {unnamed:?}; not routed: {absent:?}"
    );
    let all = document.to_string();
    let mut ids = BTreeSet::new();
    for (method, path) in &named {
        let operation = &document["paths"][path][method.to_lowercase()];
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
        assert!(operation["responses"]["default"].is_object(), "{method} {path}: says nothing of problems");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        jsonschema::meta::validate(schema).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(all.contains(&format!("#/components/schemas/{name}\"")), "{name} is used nowhere");
    }
}

#[test]
fn whatever_is_about_a_tenant_is_below_its_name() {
    // What a key that is limited to a tenant may reach is told by this part of the path alone.
    for route in routes() {
        let about_one = route.path.starts_with("/admin/v1/tenants/");
        assert_eq!(about_one, route.path.contains("{tenant}"), "{}", route.path);
    }
}
