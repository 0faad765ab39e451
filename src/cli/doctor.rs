//! `cluegate doctor`: what is here, and how to mend what is not right.

use std::path::Path;
use std::time::Instant;

use cluegate::hub::{HubCache, Settings, bytes};
use cluegate_provenance::Opened;
use cluegate_server::config::Config;
use serde::Serialize;

use super::args::{DoctorArgs, Format};
use super::compute::DeviceName;
use super::{Exit, open_engine, say, say_json};

/// Memory that judging with the embedded suite needs, with room to spare.
const NEEDED_BYTES: u64 = 1 << 30;

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, ok: true, found: found.into(), fix: None }
    }

    fn bad(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, ok: false, found: found.into(), fix: Some(fix.into()) }
    }
}

pub(super) fn run(arguments: &DoctorArgs) -> anyhow::Result<Exit> {
    let mut findings =
        vec![version(), processor(), memory(), device(arguments.models.compute.device), cache()];
    findings.extend(models(arguments));
    findings.extend(plugins(arguments));
    findings.extend(arguments.config.as_deref().and_then(provenance));
    let all_good = findings.iter().all(|finding| finding.ok);
    match arguments.format {
        Format::Json => say_json(&findings)?,
        Format::Text => {
            for finding in &findings {
                say(format_args!(
                    "{}  {:10} {}",
                    if finding.ok { "ok " } else { "BAD" },
                    finding.what,
                    finding.found
                ))?;
                if let Some(fix) = &finding.fix {
                    say(format_args!("     {:10} fix: {fix}", ""))?;
                }
            }
        }
    }
    Ok(if all_good { Exit::Clean } else { Exit::Error })
}

fn version() -> Finding {
    let build = if cfg!(debug_assertions) { "debug build: slow" } else { "release build" };
    let found = format!(
        "cluegate {}, {} {}, {build}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    if cfg!(debug_assertions) {
        Finding::bad("program", found, "build with `cargo build --release`")
    } else {
        Finding::good("program", found)
    }
}

fn processor() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found = format!("{cores} cores{}", if has_avx2() { ", AVX2" } else { "" });
    if cfg!(target_arch = "x86_64") && !has_avx2() {
        return Finding::bad(
            "processor",
            found,
            "use a processor with AVX2: without it judging is several times slower",
        );
    }
    Finding::good("processor", found)
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

fn memory() -> Finding {
    let Some(bytes) = available_memory() else {
        return Finding::good("memory", "this system does not say how much is available");
    };
    let found = format!("{:.1} GiB available", bytes as f64 / f64::from(1 << 30));
    if bytes < NEEDED_BYTES {
        return Finding::bad("memory", found, "free some: the embedded suite needs up to 1 GiB");
    }
    Finding::good("memory", found)
}

/// What Linux counts as available, in bytes.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Where the models compute that this run of doctor opens, and which GPUs there are.
#[cfg(not(feature = "cuda"))]
fn device(wanted: DeviceName) -> Finding {
    match wanted {
        DeviceName::Cpu => Finding::good("device", "cpu; this build knows no other"),
        DeviceName::Cuda(_) => Finding::bad(
            "device",
            format!("{wanted} is asked for, and this build computes on the CPU only"),
            "build with `cargo build --release --features cuda` (docs/gpu.md), or leave --device out",
        ),
    }
}

#[cfg(feature = "cuda")]
fn device(wanted: DeviceName) -> Finding {
    let gpus = match cluegate_models::cuda::gpus() {
        Ok(gpus) => gpus,
        Err(error) => {
            let found = format!("{wanted}; asking the driver for GPUs failed: {error}");
            let fix = "install NVIDIA's driver, and run where the GPU can be reached";
            return match wanted {
                DeviceName::Cpu => Finding::good("device", found),
                DeviceName::Cuda(_) => Finding::bad("device", found, fix),
            };
        }
    };
    let all: Vec<String> = gpus.iter().map(ToString::to_string).collect();
    let found =
        format!("{wanted}; GPUs: {}", if all.is_empty() { "none".to_owned() } else { all.join(", ") });
    let DeviceName::Cuda(number) = wanted else { return Finding::good("device", found) };
    match gpus.iter().find(|gpu| gpu.number == number) {
        Some(gpu) if gpu.has_kernels() => Finding::good("device", found),
        Some(_) => {
            Finding::bad("device", found, "use a GPU of compute capability 8.0 or higher (Ampere and later)")
        }
        None => Finding::bad("device", found, "name one that is there: --device cuda:N"),
    }
}

/// Where Hugging Face tools keep checkpoints; may not exist yet.
fn cache() -> Finding {
    let settings = match Settings::from_env() {
        Ok(settings) => settings,
        Err(error) => {
            let fix = "set HF_HOME to a folder with room for models, and the other variables as `cluegate models pull \
                       --help` says";
            return Finding::bad("cache", error.to_string(), fix);
        }
    };
    let place = settings.cache.display();
    match HubCache::from_settings(&settings).repos() {
        Ok(repos) if repos.is_empty() => Finding::good(
            "cache",
            format!("{place}, empty; `cluegate models pull laptop` fetches models for real pictures"),
        ),
        Ok(repos) => {
            let total = repos.iter().map(|repo| repo.bytes).sum();
            Finding::good("cache", format!("{place}, {} checkpoints, {}", repos.len(), bytes(total)))
        }
        Err(error) => {
            Finding::bad("cache", error.to_string(), "make the folder readable, or name another in HF_HOME")
        }
    }
}

/// The libraries of plugins, and whether what they need is here. Runs none of them.
fn plugins(arguments: &DoctorArgs) -> Vec<Finding> {
    let libraries = match super::plugins::libraries(arguments.config.as_deref()) {
        Ok(libraries) => libraries,
        Err(error) => {
            let fix = "name folders and files that are there in `plugins` of the configuration, and in CLUEGATE_PLUGIN_PATH";
            return vec![Finding::bad("plugins", format!("{error:#}"), fix)];
        }
    };
    let mut findings = Vec::new();
    for library in &libraries {
        let lacking = cluegate_plugin_host::lacking(library);
        if !lacking.is_empty() {
            let found = format!(
                "{} needs shared libraries that are not here: {}",
                library.display(),
                lacking.join(", ")
            );
            findings.push(Finding::bad("plugins", found, cluegate_plugin_host::remedy(&lacking)));
        }
    }
    if findings.is_empty() {
        let found = match libraries.len() {
            0 => "none".to_owned(),
            count => format!("{count}, and all that they need"),
        };
        findings.push(Finding::good("plugins", found));
    }
    findings
}

/// What a gateway's configuration signs files with, if it names anything.
fn provenance(config: &Path) -> Option<Finding> {
    let opened = match Config::load(config) {
        Ok(config) => super::provenance::open(&config).transpose()?,
        Err(error) => {
            let fix = "`cluegate config check` names all that is wrong with the configuration";
            return Some(Finding::bad("provenance", error.to_string(), fix));
        }
    };
    Some(match opened {
        Ok(Opened { subject, valid_until, .. }) => {
            Finding::good("provenance", format!("files are signed by {subject}, valid until {valid_until}"))
        }
        Err(error) => {
            let fix = "name a certificate and its key in [provenance] of the configuration, or remove that table \
                       (docs/provenance.md)";
            Finding::bad("provenance", error.to_string(), fix)
        }
    })
}

fn models(arguments: &DoctorArgs) -> Vec<Finding> {
    let begin = Instant::now();
    let engine = match open_engine(&arguments.models) {
        Ok(engine) => engine,
        Err(error) => {
            let fix = "name a preset or a models file with --models (`cluegate models pull laptop` fetches a preset for \
                       real pictures), or leave it out for the embedded suite, which the default features build in";
            return vec![Finding::bad("models", format!("{error:#}"), fix)];
        }
    };
    let models = engine.judge().models();
    let short = |fingerprint: &str| fingerprint.chars().take(12).collect::<String>();
    let mut findings = vec![Finding::good(
        "models",
        format!(
            "{} loaded in {} ms: relevance {}, detector {}, judge {}",
            arguments
                .models
                .models
                .as_ref()
                .map_or("embedded suite".to_owned(), |path| path.display().to_string()),
            begin.elapsed().as_millis(),
            short(&models.relevance),
            short(&models.detector),
            short(&models.judge),
        ),
    )];
    if let Some(domain) = engine.domain() {
        findings.push(Finding::good("domain", domain.name()));
    }
    if !engine.has_generator() {
        findings.push(Finding::good("generator", "none in this set; `generate` needs one, `judge` does not"));
        return findings;
    }
    findings.push(match engine.generator() {
        Ok(generator) => {
            let (width, height) = generator.default_size();
            Finding::good("generator", format!("{width} x {height} pixels"))
        }
        Err(error) => {
            Finding::bad("generator", error.to_string(), "`generate` and `demo` need one; `judge` does not")
        }
    });
    findings
}
