//! Front ends: each reads one dialect into the shared vocabulary and writes outcomes back.

use crate::config::Config;
use crate::router::Front;

/// The front ends that the configuration offers.
pub(crate) fn offered(config: &Config) -> Vec<Front> {
    let _ = config;
    Vec::new()
}
