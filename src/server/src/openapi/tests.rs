#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::front;

const ESSENTIALS: &str = include_str!("essentials.json");
const METHODS: [&str; 7] = ["get", "post", "put", "delete", "patch", "head", "options"];

fn config(fronts: &[FrontName]) -> Config {
    let fronts = serde_json::to_string(fronts).unwrap();
    Config::parse(&format!("fronts = {fronts}\n[keys]\nanonymous = \"t\"\n"), "gate.toml", Path::new(""))
        .unwrap()
}

fn operations(document: &Value) -> impl Iterator<Item = (&String, &'static str, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, item)| {
        METHODS.iter().filter_map(move |method| Some((path, *method, item.get(method)?)))
    })
}

/// `{*rest}` is axum's word for what OpenAPI has none for.
fn as_openapi_writes(path: &str) -> String {
    path.replace("{*", "{")
}

#[test]
fn every_route_of_every_front_is_named_and_no_other() {
    for name in FrontName::ALL {
        let config = config(&[name]);
        let routes: BTreeSet<(String, String)> = front::offered(&config)
            .iter()
            .flat_map(|front| &front.routes)
            .flat_map(|route| {
                route.methods.iter().map(|method| (as_openapi_writes(route.path), (*method).to_owned()))
            })
            .collect();
        let document = document(&config).unwrap();
        let of_the_server = ["/healthz", "/readyz", "/openapi.json"];
        let named: BTreeSet<(String, String)> = operations(&document)
            .filter(|(path, ..)| !of_the_server.contains(&path.as_str()))
            .map(|(path, method, _)| (path.clone(), method.to_uppercase()))
            .collect();
        let unnamed: Vec<_> = routes.difference(&named).collect();
        let absent: Vec<_> = named.difference(&routes).collect();
        assert!(
            unnamed.is_empty() && absent.is_empty(),
            "{name:?}: not in openapi/: {unnamed:?}; not routed: {absent:?}"
        );
    }
}

#[test]
fn the_document_has_what_openapi_asks_for() {
    let document = document(&config(&FrontName::ALL)).unwrap();
    let essentials = jsonschema::validator_for(&serde_json::from_str(ESSENTIALS).unwrap()).unwrap();
    let problems: Vec<String> =
        essentials.iter_errors(&document).map(|e| format!("{}: {e:.200}", e.instance_path())).collect();
    assert!(problems.is_empty(), "{problems:#?}");
    let tags: Vec<&str> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let (mut ids, mut problems) = (BTreeSet::new(), Vec::new());
    for (path, method, operation) in operations(&document) {
        if !ids.insert(operation["operationId"].as_str().unwrap()) {
            problems.push(format!("{method} {path}: the operationId is taken"));
        }
        if !operation["tags"].as_array().unwrap().iter().all(|tag| tags.contains(&tag.as_str().unwrap())) {
            problems.push(format!("{method} {path}: an unknown tag"));
        }
        let declared = declared_path_parameters(&document, &document["paths"][path], operation);
        let inside: BTreeSet<String> =
            path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap().to_owned()).collect();
        if declared != inside {
            problems.push(format!("{method} {path}: declares the parameters {declared:?}"));
        }
        let is_gated = operation.get("security").is_none();
        if is_gated && operation["responses"].get("default").is_none() {
            problems.push(format!("{method} {path}: says nothing of problems"));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

fn declared_path_parameters(document: &Value, item: &Value, operation: &Value) -> BTreeSet<String> {
    let lists = [&item["parameters"], &operation["parameters"]];
    let parameters = lists.into_iter().filter_map(Value::as_array).flatten();
    parameters
        .map(|parameter| match parameter["$ref"].as_str() {
            Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
            None => parameter,
        })
        .filter(|parameter| parameter["in"] == "path")
        .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn all_references_lead_somewhere_and_all_schemas_are_schemas() {
    fn visit(document: &Value, value: &Value, used: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    let place = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(place).is_some(), "{reference} leads nowhere");
                    used.insert(place.to_owned());
                }
                fields.values().for_each(|value| visit(document, value, used));
            }
            Value::Array(values) => values.iter().for_each(|value| visit(document, value, used)),
            _ => {}
        }
    }
    let document = document(&config(&FrontName::ALL)).unwrap();
    let mut used = BTreeSet::new();
    visit(&document, &document, &mut used);
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        jsonschema::meta::validate(schema).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(used.contains(&format!("/components/schemas/{name}")), "{name} is used nowhere");
    }
}

#[test]
fn the_codes_and_reasons_are_those_of_the_program() {
    let document = document(&config(&[])).unwrap();
    let listed = |name: &str| -> BTreeSet<String> {
        let values = document["components"]["schemas"][name]["enum"].as_array().unwrap();
        values.iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    use ProblemKind as K;
    let kinds = [
        K::BadRequest,
        K::Inexpressible,
        K::Unauthenticated,
        K::TooManyGuesses,
        K::Forbidden,
        K::NotFound,
        K::MethodNotAllowed,
        K::Conflict,
        K::TooLarge,
        K::UnsupportedType,
        K::RequestTimeout,
        K::Overloaded,
        K::RateLimited,
        K::QuotaExceeded,
        K::Suspended,
        K::StoreGone,
        K::Draining,
        K::UpstreamRefused,
        K::UpstreamFailed,
        K::UpstreamTimeout,
        K::DeadlineExceeded,
        K::JudgeFailed,
        K::Internal,
    ];
    assert_eq!(listed("ProblemCode"), kinds.map(|kind| kind.code().to_owned()).into());
    use cluegate_gate::Reason as R;
    let reasons = [
        R::Safe,
        R::Allowed,
        R::Redacted,
        R::Shadow,
        R::Unjudged,
        R::HeldForReview,
        R::Violation,
        R::TriesExhausted,
        R::RedactionFailed,
        R::JudgeError,
        R::JudgeTimeout,
        R::GeneratorFailure,
        R::RequestTimeout,
        R::Limit,
        R::LogFailure,
        R::SigningFailure,
        R::NotFinished,
        R::Cancelled,
        R::Preview,
    ];
    assert_eq!(listed("Reason"), reasons.map(|reason| reason.as_str().to_owned()).into());
}

#[test]
fn what_is_not_offered_is_not_named_and_without_keys_none_is_asked_for() {
    let document = document(&config(&[FrontName::Judge])).unwrap();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths, ["/healthz", "/readyz", "/openapi.json", "/v1/judge"]);
    assert!(document["security"].as_array().unwrap().contains(&json!({})));
    let text = "[keys]\nfile = \"keys.toml\"\n";
    let locked = super::document(&Config::parse(text, "gate.toml", Path::new("")).unwrap()).unwrap();
    assert!(!locked["security"].as_array().unwrap().contains(&json!({})));
}
