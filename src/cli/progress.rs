//! Progress bars on long work: on a terminal only, on standard error.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar of `total` steps; draws nothing unless standard error is a terminal.
pub(crate) fn bar(total: u64, what: &str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style =
        ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {elapsed} (about {eta} left) {msg}");
    let bar = ProgressBar::with_draw_target(Some(total), target).with_prefix(what.to_owned());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A count of work whose end is not known, under the same conditions.
pub(crate) fn counter(what: &str) -> ProgressBar {
    let bar = bar(0, what);
    match ProgressStyle::with_template("{prefix} {pos} {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A bar of `total` bytes, under the same conditions and if it is `wanted`.
pub(crate) fn byte_bar(total: u64, what: &str, wanted: bool) -> ProgressBar {
    let bar = bar(total, what);
    if !wanted {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} (about {eta} left) {msg}";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
