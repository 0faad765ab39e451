//! Where the figures were taken, and how much memory this process holds.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde::Serialize;

/// This process, where others have their number.
const SELF: &str = "self";

/// The machine and the program.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// Model name of the processor.
    pub(crate) cpu: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Memory in GiB.
    pub(crate) memory_gib: f64,
    /// Day and time, UTC.
    pub(crate) date: String,
    /// Commit of the checkout, with `+` if files differ from it.
    pub(crate) commit: String,
    /// Version of cluegate.
    pub(crate) version: &'static str,
}

impl Machine {
    /// This machine, now.
    pub(crate) fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let gib = kib_of(&read("/proc/meminfo"), "MemTotal").map_or(f64::NAN, |kib| kib / 1024.0 / 1024.0);
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: gib.round(),
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// One line.
    pub(crate) fn line(&self) -> String {
        format!(
            "{}, {} cores, {} GiB; {}; cluegate {} at {}",
            self.cpu, self.cores, self.memory_gib, self.date, self.version, self.commit
        )
    }
}

/// The commit of the checkout that this program was built from; none outside of one.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(format!("{}{}", git(&["rev-parse", "--short", "HEAD"])?, if changed { "+" } else { "" }))
}

/// Memory of this process that is in use now (resident set), in MiB.
pub(crate) fn resident_mb() -> anyhow::Result<f64> {
    status_mb(SELF, "VmRSS")
}

/// The same of another process.
pub(crate) fn resident_mb_of(process: u32) -> anyhow::Result<f64> {
    status_mb(&process.to_string(), "VmRSS")
}

/// The most that was ever in use, or since [`reset_peak`].
pub(crate) fn peak_mb() -> anyhow::Result<f64> {
    status_mb(SELF, "VmHWM")
}

/// Lets the peak begin anew at what is in use now. Without the right to do so the old peak stays, which is never less.
pub(crate) fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Time of the processor that this process has used so far, over all cores, in milliseconds; NaN where the system does
/// not say.
pub(crate) fn processor_ms() -> f64 {
    processor_time(SELF)
}

/// The same of another process.
pub(crate) fn processor_ms_of(process: u32) -> f64 {
    processor_time(&process.to_string())
}

fn processor_time(process: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    ticks(&text).map_or(f64::NAN, |ticks| ticks * MS_PER_TICK)
}

/// Linux counts in hundredths of a second for programs, whatever it counts in itself.
const MS_PER_TICK: f64 = 10.0;

/// Ticks in user and in system mode: the fields 14 and 15 of `stat`, where the second may hold spaces in brackets.
fn ticks(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11).map(str::parse::<f64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

fn status_mb(process: &str, key: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("memory is read from {path}"))?;
    let kib = kib_of(&text, key).with_context(|| format!("expected {key} in {path}, found none"))?;
    Ok(kib / 1024.0)
}

fn kib_of(text: &str, key: &str) -> Option<f64> {
    field(text, key)?.strip_suffix("kB")?.trim().parse().ok()
}

/// The value of the first line `key: value`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_are_found_by_their_whole_name() {
        let text = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!(kib_of(text, "VmRSS"), Some(1024.0));
        assert_eq!(kib_of(text, "VmHWM"), Some(2048.0));
        assert_eq!(kib_of(text, "Vm"), None);
        assert_eq!(field(text, "model name"), Some("Some CPU @ 2 GHz"));
    }

    #[test]
    fn ticks_are_those_of_user_and_system() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 0 0 0 250 30 9 9 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some(280.0));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_holds_memory() {
        let (resident, peak) = (resident_mb().unwrap(), peak_mb().unwrap());
        assert!(resident > 0.5 && peak >= 0.9 * resident, "{resident} {peak}");
    }
}
