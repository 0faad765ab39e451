//! Front ends: each reads one dialect into the shared vocabulary and writes outcomes back.

mod a1111;
mod comfyui;
mod guardrail;
mod judge;
mod moderations;
mod openai;
mod sdcpp;
mod sessions;
mod verdict;

use crate::config::{Config, FrontName};
use crate::router::Front;

/// The front ends that the configuration offers.
pub(crate) fn offered(config: &Config) -> Vec<Front> {
    let mut fronts = Vec::new();
    if config.offers(FrontName::A1111) {
        fronts.push(a1111::front());
    }
    if config.offers(FrontName::OpenAi) {
        fronts.push(openai::front(config));
    }
    if config.offers(FrontName::SdCpp) {
        fronts.push(sdcpp::front(config));
    }
    if config.offers(FrontName::Judge) {
        fronts.push(judge::front());
    }
    if config.offers(FrontName::Sessions) {
        fronts.push(sessions::front());
    }
    if config.offers(FrontName::Moderations) {
        fronts.push(moderations::front());
    }
    if config.offers(FrontName::Guardrail) {
        fronts.push(guardrail::front());
    }
    if config.offers(FrontName::ComfyUi) {
        fronts.push(comfyui::front(config));
    }
    fronts
}
