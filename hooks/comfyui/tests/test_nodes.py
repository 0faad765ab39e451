"""The nodes by themselves, with tensors of torch. `tests_comfyui` runs them inside a real ComfyUI."""

import importlib
import json
import math
import pathlib
import socket
import sys

import pytest
import torch
from cluegate_client import GateError, Outcome, Release, Withhold
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
nodes = importlib.import_module("cluegate_nodes.nodes")


class Gate:
    """Red is bad, blue is redacted."""

    dead = False

    def open(self, request):
        if self.dead:
            raise GateError("nobody answers")
        return self

    def finished(self, member, image):
        red, _, blue = image.getpixel((0, 0))
        if red > 200:
            grey = Image.new("RGB", image.size, (51, 51, 51))
            return Withhold(Outcome("withheld", "violation", "no", member, "d"), grey)
        if blue > 200:
            return Release(Image.new("RGB", image.size), Outcome("released", "redacted", "hidden", member, "d"))
        return Release(image, Outcome("released", "safe", "yes", member, "d"))

    def close(self):
        return []


def batch(*colours):
    return torch.stack([torch.tensor(colour, dtype=torch.float32).expand(8, 8, 3) for colour in colours])


GREEN, RED, BLUE = (0.0, 0.8, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def test_images_are_let_through_one_by_one():
    answer = nodes.CluegateImages().gate(batch(GREEN, RED, BLUE), Gate(), "a shop")
    shown, told = answer["result"]
    assert shown.shape == (3, 8, 8, 3)
    assert [round(float(one[0, 0].max()), 2) for one in shown] == [0.8, 0.2, 0.0]
    assert [one["reason"] for one in json.loads(told)] == ["safe", "violation", "redacted"]
    assert nodes.CluegateVerdict().read(told)["result"][:2] == (False, 2)


def test_latents_of_what_is_not_released_as_it_came_are_zeros():
    class Vae:
        def decode(self, z):
            return batch(GREEN, RED, BLUE)

    z = torch.ones(3, 4, 2, 2)
    latents, told = nodes.CluegateLatents().gate({"samples": z, "noise_mask": None}, Vae(), Gate())["result"]
    assert [float(one.sum()) for one in latents["samples"]] == [16, 0, 0] and float(z.sum()) == 48
    with pytest.raises(RuntimeError, match="each of 2"):
        nodes.CluegateLatents().gate({"samples": z[:2]}, Vae(), Gate())


def test_a_dead_gate_lets_nothing_through():
    gate = Gate()
    gate.dead = True
    shown, told = nodes.CluegateImages().gate(batch(GREEN), gate)["result"]
    assert float(shown.max()) == 0 and json.loads(told)[0]["reason"] == "gate-error"


def test_a_defect_in_the_node_hands_nothing_on():
    # ComfyUI ends the workflow with what a node raises.
    class Defect(Gate):
        def finished(self, member, image):
            raise RuntimeError("a defect")

    class Vae:
        def decode(self, z):
            return batch(GREEN)

    with pytest.raises(RuntimeError, match="a defect"):
        nodes.CluegateImages().gate(batch(GREEN), Defect())
    with pytest.raises(RuntimeError, match="a defect"):
        nodes.CluegateLatents().gate({"samples": torch.ones(1, 4, 2, 2)}, Vae(), Defect())


def test_a_gate_that_is_too_slow_lets_nothing_through(monkeypatch):
    # Takes connections and never answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("CLUEGATE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        [gate] = nodes.CluegateGate().choose("default", 0.2)
        shown, told = nodes.CluegateImages().gate(batch(GREEN, GREEN), gate)["result"]
    assert float(shown.max()) == 0
    assert ["in time" in one["message"] for one in json.loads(told)] == [True, True]


def test_numbers_that_are_none_are_no_picture():
    broken = batch(GREEN, GREEN)
    broken[1] = math.nan
    shown, _ = nodes.CluegateImages().gate(broken, Gate())["result"]
    assert not shown.isnan().any()


def test_choices_are_those_with_a_key(monkeypatch):
    monkeypatch.setenv("CLUEGATE_KEY_NEWSROOM", "cg_x")
    assert nodes.CluegateGate.INPUT_TYPES()["required"]["constitution"] == (["default", "newsroom"],)
    assert nodes.CluegateGate().choose("newsroom", 5.0)
    with pytest.raises(GateError, match="CLUEGATE_KEY_KIDS"):
        nodes.CluegateGate().choose("kids", 5.0)
    assert math.isnan(nodes.CluegateImages.IS_CHANGED())
