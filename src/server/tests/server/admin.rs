//! The administration: who may what, tenants, templates, constitutions and keys in a store, and what becomes of them.

use cluegate_gate::fakes::CONSTITUTION;
use cluegate_server::NewKey;
use cluegate_store::Expect;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::administered::{Stored, edit};
use crate::support::{log_lines, nobody};

const TENANT: &str = "/admin/v1/tenants/t";

#[tokio::test]
async fn a_key_may_what_its_role_says_and_only_where_it_belongs() {
    let stored = Stored::new("").await;
    let gateway = stored.start(None, "").await;
    let status = async |key: &NewKey, method: Method, path: &str| {
        gateway.ask(key, method, path, "tries = 2\nextends = \"base\"\n", &[]).await.0
    };
    let unknown = NewKey::generate();
    for (key, get, put) in [
        (&stored.writer, StatusCode::OK, StatusCode::OK),
        (&stored.limited, StatusCode::OK, StatusCode::OK),
        (&stored.reader, StatusCode::OK, StatusCode::FORBIDDEN),
        // A client's key opens nothing here.
        (&stored.key, StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED),
        (&unknown, StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(status(key, Method::GET, TENANT).await, get);
        assert_eq!(status(key, Method::PUT, TENANT).await, put);
    }
    // For a key that is limited to a tenant there are no others, and nothing of all.
    let (_, real) = gateway.ask(&stored.limited, Method::GET, "/admin/v1/tenants/other", "", &[]).await;
    let (_, none) = gateway.ask(&stored.limited, Method::GET, "/admin/v1/tenants/nobody", "", &[]).await;
    assert_eq!(real.replace("other", "X"), none.replace("nobody", "X"));
    for path in ["/admin/v1/tenants/other", "/admin/v1/tenants/other/keys", "/admin/v1/tenants/nobody/usage"]
    {
        assert_eq!(status(&stored.limited, Method::GET, path).await, StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/admin/v1/tenants", "/admin/v1/status", "/admin/v1/templates", "/admin/v1/constitutions"] {
        assert_eq!(status(&stored.limited, Method::GET, path).await, StatusCode::FORBIDDEN, "{path}");
    }
    for (method, path) in [(Method::DELETE, TENANT), (Method::POST, "/admin/v1/tenants/t/resume")] {
        assert_eq!(status(&stored.limited, method, path).await, StatusCode::FORBIDDEN, "{path}");
    }
    // Nothing of it is where clients are, whatever key they bring.
    let public = nobody();
    for path in ["/admin/v1/status", "/admin/v1/tenants/t", "/admin/v1/reload", "/metrics"] {
        let asked = public.get(format!("{}{path}", gateway.url)).header("x-api-key", stored.writer.reveal());
        assert_eq!(asked.send().await.unwrap().status(), StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(gateway.judge(stored.writer.reveal()).await.0, StatusCode::UNAUTHORIZED);
    let (too_large, _) = gateway.ask(&stored.writer, Method::PUT, TENANT, "#".repeat(2 << 20), &[]).await;
    assert_eq!(too_large, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_tenant_is_added_changed_suspended_and_removed() {
    let stored = Stored::new("").await;
    let gateway = stored.start(None, "").await;
    let desk = "/admin/v1/tenants/desk";
    let ask = async |method: Method, path: &str, body: &str, headers: &[(&str, &str)]| {
        gateway.ask(&stored.writer, method, path, body.to_owned(), headers).await
    };
    let absent = [("if-none-match", "*")];
    let (status, body) = ask(Method::PUT, desk, "extends = \"base\"\n", &absent).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["version"], &body["in_use"]), (&json!(1), &json!(true)));
    assert_eq!(ask(Method::PUT, desk, "extends = \"base\"\n", &absent).await.0, StatusCode::CONFLICT);

    let (status, made) = ask(Method::POST, &format!("{desk}/keys"), "{\"id\": \"tablet\"}", &[]).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let made: Value = serde_json::from_str(&made).unwrap();
    let key = made["key"].as_str().unwrap();
    assert_eq!(gateway.judge(key).await.0, StatusCode::OK);

    // Two changes to one version: the second is refused. What cannot be used is refused, and nothing is written.
    let version = [("if-match", "\"1\"")];
    assert_eq!(ask(Method::PUT, desk, "extends = \"base\"\ntries = 1\n", &version).await.0, StatusCode::OK);
    assert_eq!(ask(Method::PUT, desk, "tries = 5\n", &version).await.0, StatusCode::CONFLICT);
    for (wrong, says) in [
        ("trise = 1\n", "did you mean `tries`?"),
        ("extends = \"bse\"\n", "bse"),
        ("constitution = \"wrold\"\n", "wrold"),
        ("tries = 0\n", "from 1 to 100"),
        ("provenance = \"c2pa\"\n", "expected a program that was built with them"),
    ] {
        let (status, body) = ask(Method::PUT, desk, wrong, &[]).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert!(body.contains(says), "{says}: {body}");
    }
    let (_, text) = ask(Method::GET, desk, "", &[]).await;
    assert_eq!(text, "extends = \"base\"\ntries = 1\n");
    let policy = gateway.get(&stored.reader, &format!("{desk}/policy")).await;
    let source = |key: &str| {
        let values = policy["values"].as_array().unwrap();
        values.iter().find(|value| value["key"] == key).unwrap()["source"].as_str().unwrap().to_owned()
    };
    assert!(source("tries").starts_with("tenant.desk"), "{policy}");
    assert!(source("constitution").starts_with("template.base") && source("priority") == "default");

    assert_eq!(ask(Method::POST, &format!("{desk}/suspend"), "", &[]).await.0, StatusCode::OK);
    let (status, refused) = gateway.judge(key).await;
    assert_eq!((status, &refused["error"]), (StatusCode::FORBIDDEN, &json!("suspended")));
    assert_eq!(ask(Method::POST, &format!("{desk}/resume"), "", &[]).await.0, StatusCode::OK);
    assert_eq!(gateway.judge(key).await.0, StatusCode::OK);
    assert_eq!(ask(Method::DELETE, desk, "", &[]).await.0, StatusCode::OK);
    assert_eq!(gateway.judge(key).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(Method::GET, desk, "", &[]).await.0, StatusCode::NOT_FOUND);
    // The key was told once, and stands in no log.
    assert!(!log_lines().iter().any(|line| line.contains(key)));
}

#[tokio::test]
async fn a_key_is_rotated_and_revoked_and_its_holder_is_told() {
    let stored = Stored::new("").await;
    let gateway = stored.start(None, "").await;
    let post = async |path: &str, body: &str| {
        let (status, body) = gateway
            .ask(&stored.limited, Method::POST, &format!("{TENANT}/keys{path}"), body.to_owned(), &[])
            .await;
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (status, rotated) = post("/first/rotate", "").await;
    assert_eq!((status, &rotated["id"]), (StatusCode::CREATED, &json!("first.2")), "{rotated}");
    let new = rotated["key"].as_str().unwrap();
    for key in [stored.key.reveal(), new] {
        assert_eq!(gateway.judge(key).await.0, StatusCode::OK);
    }
    assert_eq!(post("/first/revoke", "").await.0, StatusCode::OK);
    let (status, refused) = gateway.judge(stored.key.reveal()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(refused["message"].as_str().unwrap().contains("was revoked at"), "{refused}");
    assert_eq!(gateway.judge(new).await.0, StatusCode::OK);
    let (_, late) = post("", "{\"id\": \"late\", \"not_before\": \"2100-01-01T00:00:00Z\"}").await;
    let (status, refused) = gateway.judge(late["key"].as_str().unwrap()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(refused["message"].as_str().unwrap().contains("holds from 2100-01-01"), "{refused}");
    assert_eq!(post("/nobody/rotate", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(post("", "{\"id\": \"late\"}").await.0, StatusCode::CONFLICT);
    assert_eq!(post("", "{\"id\": \"a\", \"tenant\": \"other\"}").await.0, StatusCode::BAD_REQUEST);
    let listed = gateway.get(&stored.reader, &format!("{TENANT}/keys")).await;
    let ids: Vec<_> =
        listed["keys"].as_array().unwrap().iter().map(|key| (&key["id"], &key["holds"])).collect();
    assert_eq!(
        ids,
        [
            (&json!("first"), &json!(false)),
            (&json!("first.2"), &json!(true)),
            (&json!("late"), &json!(false))
        ]
    );
    assert!(!listed.to_string().contains("cg_") && !listed.to_string().contains("sha256"), "{listed}");
}

#[tokio::test]
async fn constitutions_and_templates_are_checked_with_all_that_use_them() {
    let stored = Stored::new("[action.rule]\nsword = \"allow\"\n").await;
    let gateway = stored.start(None, "").await;
    let world = "/admin/v1/constitutions/world";
    let ask = async |method: Method, path: &str, body: String| {
        gateway.ask(&stored.writer, method, path, body, &[]).await
    };
    let first =
        gateway.get(&stored.reader, "/admin/v1/constitutions").await["constitutions"][0]["revision"].clone();
    let changed = format!("{CONSTITUTION}\n# another text, and another rule\n")
        .replace("objectiveness = 10", "objectiveness = 9");
    let (status, body) = ask(Method::PUT, world, changed).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let revision = async || {
        gateway.get(&stored.reader, &format!("{TENANT}/policy")).await["constitution"]["revision"].clone()
    };
    let second = revision().await;
    let revisions = gateway.get(&stored.reader, &format!("{world}/revisions")).await;
    assert_eq!(revisions["revisions"].as_array().unwrap().len(), 2, "{revisions}");
    let (status, body) =
        ask(Method::POST, &format!("{world}/rollback"), json!({ "revision": first }).to_string()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(revision().await, first);
    assert_ne!(first, second);
    for (method, path, body) in [
        (Method::PUT, world, "name = \"world\"\n".to_owned()),
        (Method::DELETE, world, String::new()),
        (Method::DELETE, "/admin/v1/templates/base", String::new()),
        (Method::PUT, "/admin/v1/templates/base", "constitution = \"nowhere\"\n".to_owned()),
        (Method::PUT, "/admin/v1/templates/base", "extends = \"base\"\n".to_owned()),
    ] {
        let (status, told) = ask(method.clone(), path, body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{method} {path}: {told}");
    }
    assert_eq!(gateway.judge(stored.key.reveal()).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_store_that_cannot_be_used_leaves_the_last_that_could() {
    let stored = Stored::new("").await;
    let gateway = stored.start(None, "[reload]\npoll_ms = 20\n").await;
    let mut wrong = edit(&stored.store).await;
    wrong.put_template("base", "constitution = \"nowhere\"\n", Expect::Any).await.unwrap();
    wrong.commit().await.unwrap();
    let policies = async || gateway.get(&stored.reader, "/admin/v1/status").await["policies"].clone();
    let refused = crate::support::within(async {
        loop {
            let policies = policies().await;
            if !policies["refused"].is_null() {
                break policies;
            }
        }
    })
    .await;
    assert!(refused["refused"]["problem"].as_str().unwrap().contains("nowhere"), "{refused}");
    assert_eq!(gateway.judge(stored.key.reveal()).await.0, StatusCode::OK);
    let (status, told) = gateway.ask(&stored.writer, Method::POST, "/admin/v1/reload", "", &[]).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{told}");
    let mut right = edit(&stored.store).await;
    right.put_template("base", "constitution = \"world\"\ntries = 1\n", Expect::Any).await.unwrap();
    right.commit().await.unwrap();
    crate::support::within(async { while !policies().await["refused"].is_null() {} }).await;
    let (status, told) = gateway.ask(&stored.writer, Method::POST, "/admin/v1/reload", "", &[]).await;
    assert_eq!(status, StatusCode::OK, "{told}");
}

#[tokio::test]
async fn gateways_that_share_a_store_share_a_quota() {
    let stored = Stored::new("[quota]\npictures_per_day = 7\n").await;
    let gateways = [stored.start(None, "").await, stored.start(None, "").await];
    let asked = (0..20).map(|number| gateways[number % 2].judge(stored.key.reveal()));
    let answers = futures_util::future::join_all(asked).await;
    let of = |wanted: StatusCode| answers.iter().filter(|(status, _)| *status == wanted).count();
    assert_eq!((of(StatusCode::OK), of(StatusCode::TOO_MANY_REQUESTS)), (7, 13));
    let refused = answers.iter().find(|(status, _)| *status == StatusCode::TOO_MANY_REQUESTS).unwrap();
    assert_eq!(refused.1["error"], "quota_exceeded");
    // The other tenant has its own.
    assert_eq!(gateways[0].judge(stored.other.reveal()).await.0, StatusCode::OK);
    let usage = gateways[1].get(&stored.limited, &format!("{TENANT}/usage")).await;
    let pictures = usage["usage"].as_array().unwrap().iter();
    let pictures = pictures.filter(|one| one["measure"] == "pictures" && one["period"] == "day");
    assert_eq!(pictures.map(|one| one["used"].as_i64().unwrap()).collect::<Vec<_>>(), [7], "{usage}");
}

#[tokio::test]
async fn without_its_store_a_gateway_takes_no_new_work_unless_it_is_told_to() {
    let quota = "[quota]\npictures_per_day = 7\n";
    let (strict, lenient) = (Stored::new(quota).await, Stored::new(quota).await);
    let (refuses, serves) = (strict.start(None, "").await, lenient.start_serving_on("").await);
    for stored in [&strict, &lenient] {
        stored.store.database().close().await;
    }
    let (status, told) = refuses.judge(strict.key.reveal()).await;
    assert_eq!((status, &told["error"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("store_unavailable")));
    let mut answers = Vec::new();
    for _ in 0..9 {
        answers.push(serves.judge(lenient.key.reveal()).await.0);
    }
    assert_eq!(answers.iter().filter(|status| **status == StatusCode::OK).count(), 7, "{answers:?}");
}
