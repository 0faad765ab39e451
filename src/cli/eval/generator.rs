//! Who draws for `eval build-osbench` and `eval prompts`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cluegate::{Engine, open_generator};
use cluegate_gate::{DrawOptions, Generator};
use cluegate_server::config::{Config, UpstreamKind};
use cluegate_server::upstream::{self, DrivenUpstream};
use tokio::runtime::Runtime;

use super::args::DrawArgs;
use super::names::GeneratorName;

/// A generator, and the threads that it needs.
pub(super) struct Drawing {
    generator: Arc<dyn Generator>,
    /// Kept until nobody draws any more.
    _runtime: Option<Runtime>,
}

impl Drawing {
    /// The generator that the arguments name.
    pub(super) fn open(name: &GeneratorName, engine: &Engine) -> anyhow::Result<Self> {
        let GeneratorName::Upstream(path) = name else {
            return Ok(Self { generator: Arc::new(engine.generator()?), _runtime: None });
        };
        let config = Config::load(path)?;
        let named = config.upstream.as_ref().with_context(|| {
            format!("{}: expected an [upstream], as `cluegate serve` reads it", path.display())
        })?;
        let builtin = named.kind == UpstreamKind::BuiltIn;
        let own: Option<Arc<dyn Generator>> = match (&named.generator, builtin) {
            (Some(folder), true) => Some(Arc::new(open_generator(folder)?)),
            (None, true) => Some(Arc::new(engine.generator()?)),
            (_, false) => None,
        };
        let runtime = Runtime::new().context("cannot start the threads that speak to the generator")?;
        let timeout = named.timeout.max(Duration::from_secs(1));
        let opened = {
            let _entered = runtime.enter();
            upstream::open(named, own)?
        };
        let generator = Arc::new(DrivenUpstream::new(opened, runtime.handle().clone(), timeout));
        Ok(Self { generator, _runtime: Some(runtime) })
    }

    /// The generator.
    pub(super) fn generator(&self) -> &dyn Generator {
        self.generator.as_ref()
    }
}

impl From<&DrawArgs> for DrawOptions {
    fn from(arguments: &DrawArgs) -> Self {
        Self {
            steps: arguments.steps,
            guidance: arguments.guidance,
            width: arguments.size.map(|(width, _)| width),
            height: arguments.size.map(|(_, height)| height),
            ..Self::default()
        }
    }
}
