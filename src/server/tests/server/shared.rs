//! Gateways that share a database; the decisions that are in it; and what a key of the administration sees that is limited
//! to one tenant, route by route.

use std::sync::Arc;

use cluegate_store::testing::TestDatabase;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::administered::{Administered, Stored};

const TENANT: &str = "/admin/v1/tenants/t";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_share_a_postgres_never_pass_a_quota_together() {
    let Some(database) = TestDatabase::postgres().await.unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    let stored = Stored::over(folder, database.url.clone(), "[quota]\npictures_per_day = 10\n").await;
    let gateways = [Arc::new(stored.start(None, "").await), Arc::new(stored.start(None, "").await)];
    let mut asks = JoinSet::new();
    for number in 0..30 {
        let (gateway, key) = (Arc::clone(&gateways[number % 2]), stored.key.reveal().to_owned());
        asks.spawn(async move { gateway.judge(&key).await.0 });
    }
    let mut answers = asks.join_all().await;
    answers.sort();
    let (judged, refused) = answers.split_at(10);
    assert!(judged.iter().all(|status| *status == StatusCode::OK), "{answers:?}");
    assert!(refused.iter().all(|status| *status == StatusCode::TOO_MANY_REQUESTS), "{answers:?}");
    for gateway in &gateways {
        let usage = gateway.get(&stored.reader, &format!("{TENANT}/usage")).await;
        let pictures = usage["usage"].as_array().unwrap().iter().find(|one| one["measure"] == "pictures");
        assert_eq!(pictures.unwrap()["used"], 10, "{usage}");
        // Another tenant has its own.
        assert_eq!(gateway.judge(stored.other.reveal()).await.0, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_decisions_of_a_tenant_are_found_by_page_and_by_id_and_those_of_others_are_not() {
    let stored = Stored::new("").await;
    let gateway = stored.start_logged("gate-1").await;
    for key in [&stored.key, &stored.key, &stored.key, &stored.other] {
        assert_eq!(gateway.judge(key.reveal()).await.0, StatusCode::OK);
    }
    let path = format!("{TENANT}/decisions");
    let whole = gateway.get(&stored.reader, &path).await;
    let ids = |page: &Value| -> Vec<String> {
        let decisions = page["decisions"].as_array().unwrap().iter();
        decisions.map(|one| one["decision_id"].as_str().unwrap().to_owned()).collect()
    };
    let all = ids(&whole);
    assert_eq!((all.len(), &whole["cursor"]), (3, &Value::Null));
    let first = gateway.get(&stored.limited, &format!("{path}?limit=2")).await;
    let cursor = first["cursor"].as_str().unwrap();
    let rest = gateway.get(&stored.limited, &format!("{path}?limit=2&cursor={cursor}")).await;
    assert_eq!([ids(&first), ids(&rest)].concat(), all);
    let none = gateway.get(&stored.reader, &format!("{path}?until=2020-01-01")).await;
    assert_eq!(ids(&none), Vec::<String>::new());
    let one = gateway.get(&stored.reader, &format!("{path}/{}", all[1])).await;
    assert_eq!((&one["decision_id"], &one["labels"]["tenant"]), (&json!(all[1]), &json!("t")));
    let theirs = ids(&gateway.get(&stored.reader, "/admin/v1/tenants/other/decisions").await);
    assert_eq!(theirs.len(), 1);
    for (key, path, status) in [
        (&stored.reader, format!("{path}/{}", theirs[0]), StatusCode::NOT_FOUND),
        (&stored.limited, format!("{path}/{}", theirs[0]), StatusCode::NOT_FOUND),
        (&stored.limited, format!("/admin/v1/tenants/other/decisions/{}", theirs[0]), StatusCode::NOT_FOUND),
        (&stored.limited, "/admin/v1/tenants/other/decisions".to_owned(), StatusCode::NOT_FOUND),
        (&stored.key, path.clone(), StatusCode::UNAUTHORIZED),
        (&stored.reader, format!("{path}?since=yesterday"), StatusCode::BAD_REQUEST),
        (&stored.reader, format!("{path}?tenant=other"), StatusCode::BAD_REQUEST),
        (&stored.reader, format!("{path}?cursor=elsewhere"), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(gateway.ask(key, Method::GET, &path, "", &[]).await.0, status, "{path}");
    }
}

/// All operations that the administration documents, with `tenant` in the place of the tenant.
async fn operations(gateway: &Administered, stored: &Stored, tenant: &str) -> Vec<(Method, String, bool)> {
    let document = gateway.get(&stored.reader, "/openapi.json").await;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let (of_tenant, mut real) = (path.contains("{tenant}"), path.replace("{tenant}", tenant));
        while let Some((begin, end)) = real.find('{').zip(real.find('}')) {
            real.replace_range(begin..=end, "first");
        }
        for method in ["get", "put", "post", "delete"].iter().filter(|method| item.get(**method).is_some()) {
            operations.push((method.to_uppercase().parse().unwrap(), real.clone(), of_tenant));
        }
    }
    operations
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_a_key_that_is_limited_to_a_tenant_there_are_no_others_on_any_route() {
    let stored = Stored::new("").await;
    let gateway = stored.start_logged("gate-1").await;
    assert_eq!(gateway.judge(stored.other.reveal()).await.0, StatusCode::OK);
    let before = stored.store.export().await.unwrap();
    let theirs = operations(&gateway, &stored, "other").await;
    let nobodys = operations(&gateway, &stored, "nobody").await;
    assert!(theirs.iter().filter(|(_, _, of_tenant)| *of_tenant).count() >= 14, "{theirs:#?}");
    for ((method, path, of_tenant), (_, nobody, _)) in theirs.into_iter().zip(nobodys) {
        let ask = async |path: &str| {
            let body = if method == Method::GET { "" } else { "{}" };
            let (status, text) = gateway.ask(&stored.limited, method.clone(), path, body, &[]).await;
            // Each request has an id of its own.
            let mut told: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            if let Some(members) = told.as_object_mut() {
                members.remove("request_id");
            }
            (status, told.to_string())
        };
        let (status, told) = ask(&path).await;
        if of_tenant {
            assert_eq!(status, StatusCode::NOT_FOUND, "{method} {path}: {told}");
            let (_, of_nobody) = ask(&nobody).await;
            assert_eq!(told.replace("other", "X"), of_nobody.replace("nobody", "X"), "{method} {path}");
        } else if !["/healthz", "/openapi.json"].contains(&path.as_str()) {
            assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}: {told}");
        }
    }
    assert_eq!(stored.store.export().await.unwrap(), before);
}

#[tokio::test]
async fn what_a_policy_said_before_is_kept_with_who_wrote_it() {
    let stored = Stored::new("").await;
    let gateway = stored.start(None, "").await;
    for tries in [1, 2] {
        let policy = format!("extends = \"base\"\ntries = {tries}\n");
        let (status, told) = gateway.ask(&stored.limited, Method::PUT, TENANT, policy, &[]).await;
        assert_eq!(status, StatusCode::OK, "{told}");
    }
    let (status, _) = gateway.ask(&stored.writer, Method::DELETE, "/admin/v1/tenants/other", "", &[]).await;
    assert_eq!(status, StatusCode::OK);
    let history = gateway.get(&stored.limited, &format!("{TENANT}/history")).await;
    let versions = history["versions"].as_array().unwrap();
    let told: Vec<_> =
        versions.iter().map(|one| (&one["version"], one["policy"].as_str().unwrap())).collect();
    let expected = [
        (&json!(3), "extends = \"base\"\ntries = 2\n"),
        (&json!(2), "extends = \"base\"\ntries = 1\n"),
        (&json!(1), "extends = \"base\"\n"),
    ];
    assert_eq!(told, expected);
    assert!(versions[0]["changed_by"].as_str().unwrap().contains("limited"), "{history}");
    assert_eq!(versions[2]["changed_by"], "test");
    let before = format!("{TENANT}/history?limit=1&before={}", versions[1]["generation"]);
    assert_eq!(gateway.get(&stored.reader, &before).await["versions"], json!([versions[2]]));
    // It outlives the tenant; a template has its own.
    let gone = gateway.get(&stored.reader, "/admin/v1/tenants/other/history").await;
    assert_eq!(gone["versions"].as_array().unwrap().len(), 1);
    let template = gateway.get(&stored.reader, "/admin/v1/templates/base/history").await;
    assert_eq!(template["versions"][0]["policy"], "constitution = \"world\"\n");
    let missing = gateway.ask(&stored.reader, Method::GET, "/admin/v1/tenants/nobody/history", "", &[]).await;
    assert_eq!(missing.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_policy_may_suspend_its_tenant() {
    let stored = Stored::new("").await;
    let gateway = stored.start(None, "").await;
    let put =
        async |policy: &str| gateway.ask(&stored.writer, Method::PUT, TENANT, policy.to_owned(), &[]).await.0;
    assert_eq!(put("extends = \"base\"\nsuspended = true\n").await, StatusCode::OK);
    let (status, told) = gateway.judge(stored.key.reveal()).await;
    assert_eq!((status, &told["error"]), (StatusCode::FORBIDDEN, &json!("suspended")), "{told}");
    assert_eq!(gateway.judge(stored.other.reveal()).await.0, StatusCode::OK);
    assert_eq!(put("extends = \"base\"\n").await, StatusCode::OK);
    assert_eq!(gateway.judge(stored.key.reveal()).await.0, StatusCode::OK);
    // A model is not a tenant.
    let of_model = "extends = \"base\"\n[model.sdxl]\nsuspended = true\n";
    assert_eq!(put(of_model).await, StatusCode::UNPROCESSABLE_ENTITY);
}
