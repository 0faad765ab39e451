//! The configuration file as it is written: TOML read with serde, nothing checked beyond types and key names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cluegate_audit::LogSettings;
use cluegate_provenance::SigningSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plugins::RawPlugins;

/// A gateway's configuration file. Paths in it are relative to its folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "cluegate gateway")]
pub struct RawConfig {
    /// Address and port to listen on. Port 0 takes a free one.
    pub listen: String,
    /// What addresses that clients are given begin with, such as `https://pictures.example.com`, where a proxy stands
    /// before the gateway; without it, scheme and host as the client named them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// The policy file; without one, and without a store, the shipped default policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PathBuf>,
    /// The decision log: a decision is written before its picture is released.
    pub log: LogSettings,
    /// Folder for pictures that wait for a person.
    pub review: PathBuf,
    /// A preset, a models file, or the folder that holds one; without it, the embedded suite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<PathBuf>,
    /// Front ends to offer: `a1111`, `openai`, `comfyui`, `sdcpp`, `judge`, `moderations`, `guardrail`.
    pub fronts: Vec<FrontName>,
    /// Who may ask.
    pub keys: RawKeys,
    /// A database with tenants, constitutions, keys and usage, in place of `policy` and `keys.file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<RawStore>,
    /// When changed policies and keys are read again.
    pub reload: RawReload,
    /// The administration; without it, there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<RawAdmin>,
    /// The metrics of the administration.
    pub metrics: RawMetrics,
    /// TLS; without it, plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RawTls>,
    /// The text-to-image server. Without it only pictures that clients bring are judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<RawUpstream>,
    /// What a request, a connection and the server may cost.
    pub limits: RawServerLimits,
    /// How pictures of the upstream are read.
    pub pictures: RawPictures,
    /// The A1111 front end.
    pub a1111: RawA1111,
    /// The ComfyUI front end.
    pub comfyui: RawComfyUi,
    /// Plugins.
    pub plugins: RawPlugins,
    /// What files are signed with, for policies with `provenance = "c2pa"`; needs a build with the feature `c2pa`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<SigningSettings>,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7800".to_owned(),
            public_url: None,
            policy: None,
            log: LogSettings::default(),
            review: PathBuf::from("review"),
            models: None,
            fronts: FrontName::ALL.to_vec(),
            keys: RawKeys::default(),
            store: None,
            reload: RawReload::default(),
            admin: None,
            metrics: RawMetrics::default(),
            tls: None,
            upstream: None,
            limits: RawServerLimits::default(),
            pictures: RawPictures::default(),
            a1111: RawA1111::default(),
            comfyui: RawComfyUi::default(),
            plugins: RawPlugins::default(),
            provenance: None,
        }
    }
}

/// A front end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FrontName {
    /// AUTOMATIC1111 and Forge, `/sdapi/v1`.
    A1111,
    /// OpenAI Images, `/v1/images`.
    OpenAi,
    /// ComfyUI.
    ComfyUi,
    /// stable-diffusion.cpp's jobs, `/sdcpp/v1`.
    SdCpp,
    /// `POST /v1/judge`.
    Judge,
    /// Hosts that draw by themselves, `/v1/sessions`.
    Sessions,
    /// OpenAI Moderations, `POST /v1/moderations`.
    Moderations,
    /// The LiteLLM generic guardrail.
    Guardrail,
}

impl FrontName {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::A1111,
        Self::OpenAi,
        Self::ComfyUi,
        Self::SdCpp,
        Self::Judge,
        Self::Sessions,
        Self::Moderations,
        Self::Guardrail,
    ];
}

/// Who may ask. One of the two is needed, or a store.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawKeys {
    /// File of hashed API keys, each with its tenant. `cluegate keys new` makes one. Not with a store, which holds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Tenant of those who bring no key. Anyone who can reach the address is this tenant then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<String>,
}

/// A database with tenants, constitutions, keys and usage. One of `url` and `url_file` is needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawStore {
    /// `sqlite:PATH`, where the path is relative to this file, or `postgres://USER:PASSWORD@HOST/DATABASE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// File that holds the address, where it has a password that does not belong here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// What happens while the store cannot be reached.
    pub when_gone: WhenGone,
    /// For how long it may be silent, in milliseconds, before it counts as gone.
    pub gone_after_ms: u64,
}

impl Default for RawStore {
    fn default() -> Self {
        Self { url: None, url_file: None, when_gone: WhenGone::Refuse, gone_after_ms: 10_000 }
    }
}

/// What happens while the store cannot be reached. Work that has begun goes on in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenGone {
    /// New work is refused with status 503.
    #[default]
    Refuse,
    /// New work is done by the policies and keys that were read last, and each gateway counts quotas by itself. A key
    /// that is revoked meanwhile goes on holding.
    Serve,
}

/// When changed policies and keys are read again: besides on SIGHUP, and when the administration asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawReload {
    /// How often files, or the store's generation, are looked at, in milliseconds; 0 for never.
    pub poll_ms: u64,
}

impl Default for RawReload {
    fn default() -> Self {
        Self { poll_ms: 2_000 }
    }
}

/// The administration: an address of its own, with keys of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawAdmin {
    /// Address and port to listen on. Port 0 takes a free one.
    pub listen: String,
    /// File of hashed keys, each with a role. `cluegate keys new --role write` makes one.
    pub key_file: PathBuf,
    /// TLS; without it, plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RawTls>,
}

/// The metrics of the administration. Without it, none are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawMetrics {
    /// Tenants that have series of their own, the first that come; the others are `other` together. Up to 100000.
    pub tenants: usize,
    /// Rules that have series of their own, likewise. Up to 100000.
    pub rules: usize,
}

impl Default for RawMetrics {
    fn default() -> Self {
        Self { tenants: 100, rules: 100 }
    }
}

/// TLS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawTls {
    /// Certificate chain in PEM, the server's own first.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// Kinds of text-to-image servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamKind {
    /// AUTOMATIC1111, Forge, or another server with `/sdapi/v1`.
    A1111,
    /// OpenAI Images.
    OpenAi,
    /// ComfyUI.
    ComfyUi,
    /// stable-diffusion.cpp's own jobs.
    SdCpp,
    /// The generator in this process.
    BuiltIn,
}

/// The text-to-image server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawUpstream {
    /// What it speaks.
    pub kind: UpstreamKind,
    /// Its address, such as `http://127.0.0.1:7860`. Not for `builtin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// File that holds its key: sent as a bearer token, or as `user:password` (HTTP Basic) if it has a colon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Certificates in PEM to trust beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<PathBuf>,
    /// Most pictures in one call.
    #[serde(default = "default_batch")]
    pub batch: u32,
    /// Longest wait for one call in milliseconds.
    #[serde(default = "default_upstream_timeout")]
    pub timeout_ms: u64,
    /// Longest wait for a connection in milliseconds.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout_ms: u64,
    /// Most bytes of one answer.
    #[serde(default = "default_answer_bytes")]
    pub answer_bytes: usize,
    /// How often it is asked how far it is, in milliseconds, where it does not say so by itself.
    #[serde(default = "default_poll")]
    pub poll_ms: u64,
    /// For ComfyUI: a workflow in API form to draw other front ends' requests with, in place of the shipped one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<PathBuf>,
    /// The model to ask for where a request names none, such as a checkpoint's file name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// For `builtin`: a diffusers folder to draw with, in place of the generator of the models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<PathBuf>,
    /// For `builtin`: predictions that a preview which may end a drawing takes beyond that of its step, 0 to 1000; each costs
    /// as much as a step, and shows more of the finished picture. By default 3, and at most a fifth of the steps that are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look_ahead: Option<u32>,
}

fn default_batch() -> u32 {
    4
}

fn default_upstream_timeout() -> u64 {
    600_000
}

fn default_connect_timeout() -> u64 {
    5_000
}

fn default_answer_bytes() -> usize {
    256 << 20
}

fn default_poll() -> u64 {
    500
}

/// What a request, a connection and the server may cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawServerLimits {
    /// Most connections at a time.
    pub connections: usize,
    /// Most requests for pictures or verdicts in work at a time.
    pub in_work: usize,
    /// Most requests that wait for a place.
    pub queue: usize,
    /// What a client that was refused for want of a place is told to wait, in seconds.
    pub retry_after_s: u64,
    /// Most bytes of a request's body.
    pub body_bytes: usize,
    /// Most bytes of the bodies of all requests in work together.
    pub bodies_bytes: usize,
    /// Longest wait for the head of a request, and for a TLS handshake, in milliseconds. A connection on which no
    /// request comes is closed after this time too.
    pub head_timeout_ms: u64,
    /// Longest wait for the body of a request in milliseconds.
    pub body_timeout_ms: u64,
    /// How long a client may take nothing of its answer, in milliseconds, before its connection is closed.
    pub send_timeout_ms: u64,
    /// Longest life of a request in milliseconds, drawing and judging together. A client may ask for less.
    pub request_timeout_ms: u64,
    /// How long a host may be silent about a session that it opened, in milliseconds, before the session is ended.
    pub session_idle_ms: u64,
    /// How long requests in work may go on when the server is told to stop, in milliseconds.
    pub drain_ms: u64,
    /// Wrong keys from one address within a minute, after which it has to wait.
    pub wrong_keys: u32,
    /// How long finished jobs and released files are kept for their tenant, in milliseconds.
    pub keep_ms: u64,
    /// Most bytes of released files that are kept.
    pub keep_bytes: usize,
}

impl Default for RawServerLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            in_work: 16,
            queue: 64,
            retry_after_s: 5,
            body_bytes: 64 << 20,
            bodies_bytes: 1 << 30,
            head_timeout_ms: 10_000,
            body_timeout_ms: 60_000,
            send_timeout_ms: 60_000,
            request_timeout_ms: 600_000,
            session_idle_ms: 180_000,
            drain_ms: 60_000,
            wrong_keys: 30,
            keep_ms: 3_600_000,
            keep_bytes: 512 << 20,
        }
    }
}

/// How pictures of the upstream, or of a client that wants them judged, are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawPictures {
    /// Most bytes of one file.
    pub max_bytes: usize,
    /// Most pixels of one picture.
    pub max_pixels: u64,
    /// Convert files whose look depends on the viewer (transparency, orientation) to what most viewers show, and release
    /// that, instead of refusing them.
    pub convert: bool,
    /// Hosts that pictures named by address may be fetched from, such as `cdn.example.com`, with the port where it is
    /// not the scheme's; none: only data URLs are read. A name must not resolve to an address that is not public: such
    /// an address is listed itself, such as `10.1.2.3:8080`.
    pub fetch_hosts: Vec<String>,
    /// Longest time to fetch one picture in milliseconds.
    pub fetch_timeout_ms: u64,
}

impl Default for RawPictures {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_pixels: 40_000_000,
            convert: true,
            fetch_hosts: Vec::new(),
            fetch_timeout_ms: 10_000,
        }
    }
}

/// The A1111 front end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawA1111 {
    /// Names in `override_settings`, and options, that clients may set. Whatever writes files, runs scripts or loads
    /// from elsewhere does not belong here.
    pub options: Vec<String>,
    /// Names of scripts in `alwayson_scripts` that clients may use.
    pub scripts: Vec<String>,
    /// Values that replace a client's in every request, by parameter.
    pub fixed: BTreeMap<String, serde_json::Value>,
}

impl Default for RawA1111 {
    fn default() -> Self {
        let options = ["sd_model_checkpoint", "sd_vae", "CLIP_stop_at_last_layers", "eta_noise_seed_delta"];
        Self { options: options.map(str::to_owned).to_vec(), scripts: Vec::new(), fixed: BTreeMap::new() }
    }
}

/// The ComfyUI front end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawComfyUi {
    /// Classes of nodes that a client's workflow may have. Classes that write files elsewhere, load from addresses or run
    /// code do not belong here.
    pub nodes: Vec<String>,
    /// Most nodes of a workflow, up to 2000.
    pub max_nodes: usize,
    /// Most WebSockets of one tenant at a time.
    pub sockets: usize,
    /// After how many milliseconds a WebSocket whose client answers nothing, not even a ping, is closed.
    pub socket_idle_ms: u64,
    /// Most events that wait for a WebSocket's client; one that is slower is cut off.
    pub socket_queue: usize,
}

impl Default for RawComfyUi {
    fn default() -> Self {
        Self {
            nodes: COMFYUI_NODES.map(str::to_owned).to_vec(),
            max_nodes: 200,
            sockets: 64,
            socket_idle_ms: 90_000,
            socket_queue: 256,
        }
    }
}

/// Core nodes of ComfyUI that turn texts and uploaded pictures into pictures and touch nothing else: `nodes.py`,
/// `comfy_extras/nodes_custom_sampler.py`, `nodes_flux.py`, `nodes_sd3.py`, `nodes_clip_sdxl.py`, `nodes_model_advanced.py`,
/// `nodes_mask.py`, `nodes_upscale_model.py`, `nodes_post_processing.py`, `nodes_primitive.py`.
const COMFYUI_NODES: [&str; 88] = [
    "CheckpointLoaderSimple",
    "CLIPLoader",
    "DualCLIPLoader",
    "TripleCLIPLoader",
    "UNETLoader",
    "VAELoader",
    "LoraLoader",
    "LoraLoaderModelOnly",
    "ControlNetLoader",
    "UpscaleModelLoader",
    "CLIPSetLastLayer",
    "CLIPTextEncode",
    "CLIPTextEncodeSDXL",
    "CLIPTextEncodeSDXLRefiner",
    "CLIPTextEncodeSD3",
    "CLIPTextEncodeFlux",
    "ConditioningAverage",
    "ConditioningCombine",
    "ConditioningConcat",
    "ConditioningSetArea",
    "ConditioningSetAreaPercentage",
    "ConditioningSetAreaStrength",
    "ConditioningSetMask",
    "ConditioningSetTimestepRange",
    "ConditioningZeroOut",
    "ControlNetApply",
    "ControlNetApplyAdvanced",
    "InpaintModelConditioning",
    "FluxGuidance",
    "ModelSamplingDiscrete",
    "ModelSamplingFlux",
    "ModelSamplingSD3",
    "ModelSamplingAuraFlow",
    "FreeU",
    "FreeU_V2",
    "EmptyLatentImage",
    "EmptySD3LatentImage",
    "EmptyImage",
    "KSampler",
    "KSamplerAdvanced",
    "SamplerCustom",
    "SamplerCustomAdvanced",
    "KSamplerSelect",
    "BasicGuider",
    "CFGGuider",
    "BasicScheduler",
    "KarrasScheduler",
    "ExponentialScheduler",
    "PolyexponentialScheduler",
    "SDTurboScheduler",
    "BetaSamplingScheduler",
    "AlignYourStepsScheduler",
    "SplitSigmas",
    "RandomNoise",
    "DisableNoise",
    "VAEDecode",
    "VAEDecodeTiled",
    "VAEEncode",
    "VAEEncodeTiled",
    "VAEEncodeForInpaint",
    "SetLatentNoiseMask",
    "LatentUpscale",
    "LatentUpscaleBy",
    "LatentComposite",
    "LatentCrop",
    "LatentFlip",
    "LatentRotate",
    "LatentFromBatch",
    "LatentBatch",
    "RepeatLatentBatch",
    "LoadImage",
    "LoadImageMask",
    "ImageScale",
    "ImageScaleBy",
    "ImageScaleToTotalPixels",
    "ImageUpscaleWithModel",
    "ImageInvert",
    "ImageBatch",
    "ImagePadForOutpaint",
    "ImageToMask",
    "MaskToImage",
    "InvertMask",
    "GrowMask",
    "PrimitiveInt",
    "PrimitiveFloat",
    "PrimitiveString",
    "SaveImage",
    "PreviewImage",
];
