//! Spans on their way to a collector: from a client's own trace to the forward passes of the models.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::gateway::{Gateway, Setup};
use crate::loopback::Loopback;
use crate::support::{command, finish};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// A word of the prompt that no span may hold.
const PRIVATE: &str = "zanzibar";

/// What a collector was told.
struct Told {
    spans: Vec<Span>,
    resource: BTreeMap<String, String>,
}

fn told(collector: &Loopback) -> Told {
    let mut told = Told { spans: Vec::new(), resource: BTreeMap::new() };
    for seen in collector.seen() {
        assert_eq!(
            (seen.path.as_str(), seen.header("content-type")),
            ("/v1/traces", Some("application/x-protobuf"))
        );
        let request = ExportTraceServiceRequest::decode(&seen.body[..]).expect("a request");
        for spans in request.resource_spans {
            for attribute in spans.resource.expect("a resource").attributes {
                if let Some(Attribute::StringValue(text)) = attribute.value.and_then(|value| value.value) {
                    told.resource.insert(attribute.key, text);
                }
            }
            told.spans.extend(spans.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    told
}

impl Told {
    /// The names of the spans from the root of the trace down to `span`.
    fn path(&self, span: &Span) -> String {
        let above = self.spans.iter().find(|other| other.span_id == span.parent_span_id);
        match above {
            Some(above) => format!("{} > {}", self.path(above), span.name),
            None => span.name.clone(),
        }
    }

    fn named(&self, name: &str) -> Vec<&Span> {
        self.spans.iter().filter(|span| span.name == name).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text<'s>(span: &'s Span, key: &str) -> Option<&'s str> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Attribute::StringValue(text) => Some(text),
        _ => None,
    }
}

fn collector() -> Loopback {
    // An empty message says that all was taken.
    Loopback::start(|_| Vec::new())
}

#[test]
fn a_request_is_one_tree_from_the_client_to_the_forward_passes() {
    let (setup, collector) = (Setup::new(""), collector());
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_SERVICE_NAME", "gate-of-the-test"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        // Everything is exported when the gateway ends.
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
    ];
    let gateway = Gateway::start(&setup, &variables, &[]);
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let prompt = format!("a cat and a tree in {PRIVATE}");
    let (status, answer) = gateway.generate(&setup.open, &prompt, &[("traceparent", &parent)]);
    assert_eq!(status, 200, "{answer}");
    gateway.stop();

    let told = told(&collector);
    assert_eq!(told.resource.get("service.name").map(String::as_str), Some("gate-of-the-test"));
    assert_eq!(told.resource.get("deployment.environment.name").map(String::as_str), Some("test"));
    assert!(told.resource.contains_key("service.version"), "{:?}", told.resource);
    let request = "POST /v1/images/generations";
    let root = told.named(request)[0];
    assert_eq!((hex(&root.trace_id), hex(&root.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!((root.kind, text(root, "cluegate.tenant")), (2, Some("open")));
    assert!(
        text(root, "cluegate.decisions").is_some_and(|told| told.contains("outcome=released")),
        "{root:#?}"
    );

    let own: Vec<&Span> = told.spans.iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let paths: Vec<String> = own.iter().map(|span| told.path(span)).collect();
    for path in [
        "admission",
        "drawing",
        "drawing > upstream",
        "drawing > member > judge",
        "drawing > member > judge > relevance > batch",
        "drawing > member > judge > statements > batch",
        "drawing > member > log",
    ] {
        let path = format!("{request} > {path}");
        assert!(paths.contains(&path), "{path} in {paths:#?}");
    }
    // A forward pass names the requests that it was made for, wherever in the tree it hangs.
    let stages: Vec<&Vec<u8>> =
        own.iter().filter(|span| span.name == "statements").map(|span| &span.span_id).collect();
    let batches = told.named("batch");
    let links = |id: &Vec<u8>| batches.iter().flat_map(|batch| &batch.links).any(|link| link.span_id == *id);
    assert!(!stages.is_empty() && stages.into_iter().all(links), "{batches:#?}");
    // A child is within its parent.
    for span in &own {
        assert!(
            span.start_time_unix_nano <= span.end_time_unix_nano && span.start_time_unix_nano > 0,
            "{span:#?}"
        );
        assert!(span.start_time_unix_nano >= root.start_time_unix_nano, "{span:#?}");
        assert!(span.events.is_empty(), "{span:#?}");
    }

    let drawn = setup.upstream.seen();
    let drawn = drawn.iter().find(|seen| seen.path.ends_with("/images/generations")).expect("an order");
    let upstream = hex(&told.named("upstream")[0].span_id);
    assert_eq!(drawn.header("traceparent"), Some(format!("00-{TRACE}-{upstream}-01").as_str()));

    for seen in collector.seen() {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        for secret in [PRIVATE, "a cat", &setup.open, &setup.open[3..20], "iVBORw0KGgo"] {
            assert!(!body.contains(secret), "{secret}");
        }
    }
}

#[test]
fn a_client_that_is_not_sampled_is_not_traced_and_nothing_is_without_a_collector() {
    let (setup, collector) = (Setup::new(""), collector());
    let gateway = Gateway::start(&setup, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)], &[]);
    let parent = format!("00-{TRACE}-{PARENT}-00");
    assert_eq!(gateway.generate(&setup.open, "a cat", &[("traceparent", &parent)]).0, 200);
    gateway.stop();
    assert!(told(&collector).spans.iter().all(|span| hex(&span.trace_id) != TRACE));

    let before = collector.seen().len();
    let gateway = Gateway::start(&setup, &[("OTEL_SERVICE_NAME", "unheard")], &[]);
    assert_eq!(gateway.generate(&setup.open, "a cat", &[]).0, 200);
    gateway.stop();
    let last =
        setup.upstream.seen().into_iter().rev().find(|seen| seen.path.ends_with("/images/generations"));
    assert_eq!(last.expect("an order").header("traceparent"), None);
    assert_eq!(collector.seen().len(), before);
}

#[test]
fn a_collector_that_is_gone_costs_spans_and_no_request() {
    let setup = Setup::new("");
    // A port on which nobody listens: it was this socket's, which is closed.
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let url = format!("http://{nobody}");
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "10")];
    let gateway = Gateway::start(&setup, &variables, &["--log-format", "json"]);
    for _ in 0..3 {
        assert_eq!(gateway.generate(&setup.open, "a cat", &[]).0, 200);
    }
    let words = gateway.stop();
    let complaints = words.iter().filter(|line| line.contains("did not take a batch of spans"));
    let complaints: Vec<serde_json::Value> =
        complaints.map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(complaints.len(), 1, "{words:#?}");
    assert_eq!(complaints[0]["level"], "WARN", "{complaints:#?}");
}

#[test]
fn a_variable_that_cannot_be_used_is_named() {
    let setup = Setup::new("");
    let problem = |variables: &[(&str, &str)]| {
        let mut command = command();
        command.arg("serve").arg("--config").arg(setup.config()).envs(variables.iter().copied());
        finish(&mut command).expect(2).stderr
    };
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    assert!(
        problem(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:9")])
            .contains("OTEL_EXPORTER_OTLP_ENDPOINT must be")
    );
    assert!(problem(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).contains("must be http/protobuf"));
    assert!(
        problem(&[endpoint, ("OTEL_TRACES_SAMPLER", "sometimes")]).contains("OTEL_TRACES_SAMPLER must be")
    );
    let share = [endpoint, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "7")];
    assert!(problem(&share).contains("OTEL_TRACES_SAMPLER_ARG must be a share from 0 to 1, not \"7\""));
}
