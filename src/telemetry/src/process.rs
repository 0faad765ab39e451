//! What the system says of this process, under the names that all of Prometheus' clients use. Linux only; elsewhere these
//! metrics are absent.

use std::fs;

use crate::catalogue as metric;

/// Ticks a second in which Linux tells times of processes, on every architecture that this program is built for (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Records what the system says now. What it does not say is left out.
pub(crate) fn record() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let kilobytes = |name: &str| field(name).map(|value| value * 1024.0);
    set(&metric::PROCESS_MEMORY, kilobytes("VmRSS"));
    set(&metric::PROCESS_VIRTUAL, kilobytes("VmSize"));
    set(&metric::PROCESS_THREADS, field("Threads"));
    // The folder that is read has a handle of its own.
    let handles = fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as f64 - 1.0).max(0.0));
    set(&metric::PROCESS_FDS, handles);
    set(&metric::PROCESS_MAX_FDS, most_handles());
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the program's name, which may hold anything but the last parenthesis (proc(5)): state is the third field.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok().map(|ticks| ticks / TICKS);
    set(&metric::PROCESS_CPU, ticks(14).zip(ticks(15)).map(|(user, system)| user + system));
    set(&metric::PROCESS_START, ticks(22).zip(boot_time()).map(|(since, boot)| boot + since));
}

fn set(metric: &crate::Metric, value: Option<f64>) {
    if let Some(value) = value {
        metric.set(value, &[]);
    }
}

/// Most open file handles: the soft limit.
fn most_handles() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// When the system began, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::{Metrics, MetricsOptions};

    #[test]
    fn this_process_has_memory_handles_threads_and_a_begin() {
        let text = Metrics::new(MetricsOptions::default()).unwrap().render();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} in\n{text}")).parse().unwrap()
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let memory = value("process_resident_memory_bytes");
        assert!((1e6..1e12).contains(&memory) && memory < value("process_virtual_memory_bytes"));
        assert!((1.0..value("process_max_fds")).contains(&value("process_open_fds")));
        assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds_total") >= 0.0);
        assert!((now - 86_400.0..now + 2.0).contains(&value("process_start_time_seconds")));
    }
}
