"""A real gateway over the embedded models, and real pipelines over the embedded generator."""

import pathlib
import sys

import pytest
import torch
from diffusers import StableDiffusionPipeline

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from hook_support import ROOT, Gateway  # noqa: E402

SUITE = ROOT / "src/mini/suite/generator"
POLICY = """
[tenant.open]
action.default = "allow"
[template.no-cats]
constitution = "no-cats.toml"
placeholder = "none"
client.evidence = true
[tenant.strict]
extends = "no-cats"
[tenant.placeholder]
extends = "no-cats"
placeholder = "picture"
[tenant.again]
extends = "no-cats"
tries = 3
action.default = "regenerate"
[tenant.rewritten]
extends = "no-cats"
tries = 2
action.default = "regenerate"
regenerate.strategies = ["rewrite"]
[tenant.early]
extends = "no-cats"
tries = 1
previews = [0.9]
[tenant.hidden]
extends = "no-cats"
action.default = "redact"
redact.max_share = 1.0
redact.min_confidence = 0.0
[tenant.slow]
extends = "no-cats"
limits.judge_deadline_ms = 1
"""


@pytest.fixture(scope="session")
def gateway():
    with Gateway(POLICY) as gateway:
        yield gateway


@pytest.fixture
def pipe():
    torch.set_grad_enabled(False)
    pipe = StableDiffusionPipeline.from_pretrained(SUITE, dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe
