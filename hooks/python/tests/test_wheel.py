"""The gate in this process, over the embedded models."""

import json
import pathlib
import shutil
import sys
import types

import pytest
from cluegate_client import EmbeddedGate, GateError, Request, Withhold, judge
from cluegate_diffusers import guard
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from hook_support import POLICY as GATEWAY_POLICY  # noqa: E402
from hook_support import ROOT, draw  # noqa: E402

POLICY = """
[tenant.kids]
[tenant.again]
tries = 2
previews = [0.5]
action.default = "regenerate"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate")
    (folder / "policy.toml").write_text(POLICY)
    return folder


@pytest.fixture(scope="module")
def kids(folder):
    return EmbeddedGate("kids", folder / "policy.toml", log=folder / "decisions.jsonl")


class Pipe:
    """A pipeline that draws one picture."""

    vae = None

    def __init__(self, image):
        self.image = image

    def __call__(self, prompt=None, num_images_per_prompt=1, output_type="pil", return_dict=True):
        return types.SimpleNamespace(images=[self.image] * num_images_per_prompt)


def test_the_guard_of_diffusers_judges_in_this_process(folder):
    cat = Image.open(draw(folder, "a cat", 5)).convert("RGB")
    shutil.copy(ROOT / "tests/support/no-cats.toml", folder)
    policy = folder / "guard.toml"
    policy.write_text(GATEWAY_POLICY)
    for tenant, released in (("open", True), ("strict", False)):
        out = guard(Pipe(cat), tenant=tenant, policy=policy)("a cat", num_images_per_prompt=2)
        assert [one.released for one in out.outcomes] == [released] * 2 and out.nsfw_content_detected == [not released] * 2
        assert [image is not None and image.tobytes() == cat.tobytes() for image in out.images] == [released] * 2


def noise(seed):
    return Image.effect_noise((64, 64), 80 + seed).convert("RGB")


def test_a_session_has_an_outcome_for_each_picture_and_a_log(kids, folder):
    session = EmbeddedGate("again", gate=kids).open(Request("a shop", count=3, seed=7, steps=10))
    assert (session.seeds, session.tries, session.preview_steps) == ((7, 8, 9), 2, frozenset({5}))
    # Out of the models' domain: no verdict, so withheld.
    told = session.finished(0, noise(0))
    assert isinstance(told, Withhold) and told.outcome.reason == "judge-error" and told.placeholder.size == (64, 64)
    # A picture of one colour is a generator's failure.
    told = session.finished(1, Image.new("RGB", (64, 64)))
    assert isinstance(told, Withhold) and told.outcome.reason == "generator-failure"
    with pytest.raises(GateError, match="final"):
        session.finished(1, noise(1))
    reasons = [outcome.reason for outcome in session.close()]
    assert reasons == ["judge-error", "generator-failure", "not-finished"]
    with pytest.raises(GateError, match="closed"):
        session.finished(2, noise(2))
    lines = [json.loads(line) for line in (folder / "decisions.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines] == reasons


def test_what_cannot_be_opened_is_named(kids, folder):
    with pytest.raises(GateError, match="no policy for the tenant"):
        EmbeddedGate("nobody", gate=kids).open(Request("a shop"))
    with pytest.raises(GateError, match="unknown key"):
        (folder / "wrong.toml").write_text("[tenant.kids]\ncolour = 1\n")
        EmbeddedGate("kids", folder / "wrong.toml")
    late = EmbeddedGate("kids", gate=kids, session_timeout=0.0)
    [(shown, outcome)] = judge(late, [noise(3)])
    assert (outcome.outcome, outcome.reason) == ("withheld", "request-timeout") and shown is not None
