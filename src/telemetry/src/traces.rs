//! Spans to an OpenTelemetry collector: OTLP over HTTP with protobuf, configured by the variables that OpenTelemetry
//! specifies (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

use std::env;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use thiserror::Error;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::exporter::Client;
use crate::propagation;

/// Target of the spans that are exported; no other span is, and no event. They hold names, counts and outcomes: no prompt,
/// no picture, no key.
pub const TARGET: &str = "cluegate::trace";

/// Where the collector is.
const ENDPOINT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// How long it may take for one batch, in milliseconds.
const TIMEOUT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const PROTOCOL: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const DEFAULT_TIMEOUT_MS: u64 = 10_000;
/// How long the last spans may take when the program ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// Samplers that `OTEL_TRACES_SAMPLER` may name; the last two of them take a share in `OTEL_TRACES_SAMPLER_ARG`.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "parentbased_always_on",
    "parentbased_always_off",
    "traceidratio",
    "parentbased_traceidratio",
];

/// Traces that cannot be exported as the environment asks.
#[derive(Debug, Error)]
pub enum TraceError {
    /// A variable that cannot be used.
    #[error("the environment: {name} must be {expected}, not {found:?}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The exporter cannot be made.
    #[error("the exporter of traces cannot be made: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Exports spans. A collector that is slow, or gone, costs spans and nothing else: those that find no room are dropped.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// What the environment asks for; none unless `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector.
    ///
    /// # Errors
    /// If a variable cannot be used.
    pub fn from_env() -> Result<Option<Self>, TraceError> {
        let off = is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none");
        let Some((name, endpoint)) = first(ENDPOINT).filter(|_| !off) else { return Ok(None) };
        let refuse = |name, expected, found| Err(TraceError::Variable { name, expected, found });
        if !(endpoint.starts_with("http://") || endpoint.starts_with("https://")) {
            return refuse(name, "an address such as http://127.0.0.1:4318", endpoint);
        }
        if let Some((name, protocol)) = first(PROTOCOL).filter(|(_, protocol)| protocol != "http/protobuf") {
            return refuse(name, "http/protobuf", protocol);
        }
        check_sampler()?;
        let timeout = match first(TIMEOUT) {
            None => DEFAULT_TIMEOUT_MS,
            Some((name, text)) => match text.parse() {
                Ok(ms) if ms > 0 => ms,
                _ => return refuse(name, "a number of milliseconds above 0", text),
            },
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(Client::new(Duration::from_millis(timeout)))
            .build()?;
        // The sampler is what `OTEL_TRACES_SAMPLER` says, else the parent's word, else every request.
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build();
        propagation::enable();
        Ok(Some(Self { provider }))
    }

    /// The layer that makes spans of OpenTelemetry of those with the [`TARGET`].
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let layer = tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("cluegate"))
            .with_context_activation(false)
            .with_location(false)
            .with_tracked_inactivity(false)
            .with_threads(false)
            .with_level(false)
            .with_target(false);
        let exported = |span: &Metadata<'_>| span.is_span() && span.target() == TARGET;
        layer.with_filter(filter_fn(exported).with_max_level_hint(Level::INFO))
    }

    /// Sends what is left, and ends. Waits three seconds at most.
    pub fn end(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FAREWELL) {
            tracing::debug!(%error, "the last spans were not exported");
        }
    }
}

/// The first of `names` that is set, and its value.
fn first(names: [&'static str; 2]) -> Option<(&'static str, String)> {
    let value = |name| env::var(name).ok().filter(|value: &String| !value.is_empty());
    names.into_iter().find_map(|name| Some((name, value(name)?)))
}

fn is(name: &str, expected: &str) -> bool {
    env::var(name).is_ok_and(|value| value.eq_ignore_ascii_case(expected))
}

/// The library falls back to another sampler without a word; whoever misspells one would pay for every span.
fn check_sampler() -> Result<(), TraceError> {
    let Some((name, sampler)) = first(["OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER"]) else { return Ok(()) };
    if !SAMPLERS.contains(&sampler.as_str()) {
        let expected = "always_on, always_off, traceidratio, or one of them behind parentbased_";
        return Err(TraceError::Variable { name, expected, found: sampler });
    }
    let name = "OTEL_TRACES_SAMPLER_ARG";
    let share = env::var(name).unwrap_or_default();
    let fits = share.parse::<f64>().is_ok_and(|share| (0.0..=1.0).contains(&share));
    if sampler.ends_with("ratio") && !fits {
        return Err(TraceError::Variable { name, expected: "a share from 0 to 1", found: share });
    }
    Ok(())
}

/// Who exports: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, else `cluegate` of this version.
fn resource() -> Resource {
    let attributes = env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let given =
        |name: &str| attributes.split(',').any(|pair| pair.split('=').next().map(str::trim) == Some(name));
    let mut resource = Resource::builder();
    if env::var("OTEL_SERVICE_NAME").unwrap_or_default().is_empty() && !given("service.name") {
        resource = resource.with_service_name("cluegate");
    }
    if !given("service.version") {
        resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    }
    resource.build()
}
