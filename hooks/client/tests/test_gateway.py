"""The client, and a loop of one's own, over a real gateway: what comes out, and the ways around it."""

import base64
import io
import json
import pathlib
import sys
import urllib.request

import pytest
from cluegate_client import DrawAgain, GateError, HttpGate, Release, Request, Withhold, judge
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from hook_support import POLICY, Gateway, draw  # noqa: E402

MORE = """
[tenant.again]
constitution = "no-cats.toml"
tries = 2
action.default = "regenerate"
[tenant.rewritten]
constitution = "no-cats.toml"
tries = 2
action.default = "regenerate"
regenerate.strategies = ["rewrite"]
client.evidence = true
[tenant.stated]
provenance = "text"
[tenant.slow]
constitution = "no-cats.toml"
limits.judge_deadline_ms = 1
"""


@pytest.fixture(scope="module")
def gateway():
    with Gateway(POLICY + MORE) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def cat(tmp_path_factory):
    return Image.open(draw(tmp_path_factory.mktemp("drawn"), "a cat", 5)).convert("RGB")


def test_one_tenants_picture_is_anothers_violation(gateway, cat):
    [(shown, outcome)] = judge(gateway.gate("open"), [cat])
    assert shown.tobytes() == cat.tobytes() and not outcome.flagged
    [(shown, outcome)] = judge(gateway.gate("strict"), [cat])
    assert shown is None and (outcome.outcome, outcome.reason, outcome.flagged) == ("withheld", "violation", True)


def test_a_loop_of_ones_own_draws_again_until_it_is_told_to_stop(gateway, cat):
    session = gateway.gate("again").open(Request("a cat", seed=7))
    told = session.finished(0, cat)
    assert isinstance(told, DrawAgain) and told.attempt == 2 and told.seed != 7
    told = session.finished(0, cat)
    assert isinstance(told, Withhold) and told.outcome.reason == "tries-exhausted"
    # What is decided stays decided, whatever is drawn for it now.
    with pytest.raises(GateError, match="final"):
        session.finished(0, Image.effect_noise(cat.size, 20).convert("RGB"))
    assert [one.released for one in session.close()] == [False]
    with pytest.raises(GateError) as raised:
        session.finished(0, cat)
    assert raised.value.code == "not_found"


def test_what_is_rewritten_is_in_the_order_to_draw_again(gateway, cat):
    session = gateway.gate("rewritten").open(Request("a dog on a beach and a cat"))
    told = session.finished(0, cat)
    assert isinstance(told, DrawAgain) and told.avoid == ("a cat is visible",)
    assert told.prompt == "a dog on a beach"
    session.close()
    # Where neither evidence nor instructions are for the tenant, it hears nothing of the prompt either.
    session = gateway.gate("again").open(Request("a dog on a beach and a cat"))
    told = session.finished(0, cat)
    assert isinstance(told, DrawAgain) and (told.prompt, told.avoid) == (None, ())
    session.close()


def test_a_judge_that_is_too_slow_and_a_gate_that_is_withhold(gateway, cat):
    # Nobody has judged this one, so that there is no verdict to be remembered.
    unseen = cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    [(shown, outcome)] = judge(gateway.gate("slow"), [unseen])
    assert outcome.reason == "judge-timeout" and not outcome.released
    assert shown is None or shown.tobytes() != unseen.tobytes()
    [(shown, outcome)] = judge(gateway.gate("open", timeout=0.0001), [cat])
    assert shown is None and outcome.reason == "gate-error"


def test_a_released_file_states_its_decision_if_the_policy_says_so(gateway, cat):
    """Read by a library that is not the gate's, which checks the checksums too."""
    file = io.BytesIO()
    cat.save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    for tenant, kind in (("stated", "png"), ("stated", "jpeg"), ("open", "png")):
        key = {"authorization": f"Bearer {gateway.keys[tenant]}", "content-type": "application/json"}
        asked = json.dumps({"image": image, "return_image": True, "format": kind}).encode()
        request = urllib.request.Request(f"{gateway.url}/v1/judge", asked, key)
        with urllib.request.urlopen(request, timeout=120) as answer:
            told = json.loads(answer.read())
        shown = Image.open(io.BytesIO(base64.b64decode(told["image"])))
        shown.load()
        stated = shown.info.get("comment", b"").decode() if kind == "jpeg" else shown.info.get("cluegate", "")
        assert stated.endswith(f"; decision={told['decision_id']}") == (tenant == "stated"), (kind, shown.info)
        assert stated.startswith("gate=cluegate ") == (tenant == "stated")
        assert kind == "jpeg" or shown.convert("RGB").tobytes() == cat.tobytes()


def test_another_tenants_session_and_no_key_lead_nowhere(gateway, cat):
    session = gateway.gate("open").open(Request("a cat"))
    session._gate = gateway.gate("strict")
    with pytest.raises(GateError) as raised:
        session.finished(0, cat)
    assert raised.value.code == "not_found"
    for key in (None, "cg_guessed"):
        [(shown, outcome)] = judge(HttpGate(gateway.url, key), [cat])
        assert shown is None and outcome.reason == "gate-error"


def test_a_gateway_that_is_killed_in_the_middle_releases_nothing_more(cat):
    with Gateway() as gateway:
        session = gateway.gate("open", timeout=20).open(Request("a cat", count=2))
        assert isinstance(session.finished(0, cat), Release)
        gateway.kill()
        for ask in (lambda: session.finished(1, cat), lambda: session.failed(1, "nothing"), session.close):
            with pytest.raises(GateError):
                ask()
        [(shown, outcome)] = judge(gateway.gate("open", timeout=20), [cat])
        assert shown is None and outcome.reason == "gate-error"
