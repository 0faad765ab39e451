"""What may stand in a workflow, and the check of ComfyUI that is stood before. `tests_comfyui` tries both in a real one."""

import asyncio
import importlib
import pathlib
import sys
import types

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
watch = importlib.import_module("cluegate_nodes.watch")


def kind(is_output):
    return type("Kind", (), {"OUTPUT_NODE": is_output})


CLASSES = {name: kind(name.startswith(("Save", "Preview"))) for name in ("SaveImage", "PreviewImage", "SaveAll", "VAEDecode")}
CLASSES |= {"CluegateImages": kind(False), "CluegateVerdict": kind(True), "Plain": type("Plain", (), {})}


def node(name, **inputs):
    return {"class_type": name, "inputs": inputs}


GATED = {
    "1": node("VAEDecode"),
    "2": node("CluegateImages", images=["1", 0]),
    "3": node("SaveImage", images=["2", 0], filename_prefix="a"),
    "4": node("CluegateVerdict", verdict=["2", 1]),
    "5": node("Plain", images=["1", 0]),
}


def test_what_comes_from_the_gate_may_be_shown():
    assert watch.ungated(GATED, CLASSES) == []


@pytest.mark.parametrize(
    "added",
    [
        node("SaveImage", images=["1", 0]),
        node("PreviewImage", images=["5", 0]),
        # One picture of the gate's does not excuse another.
        node("SaveAll", first=["2", 0], second=["1", 0]),
        # Draws or loads by itself.
        node("SaveAll", file="a.png"),
        {"class_type": "SaveAll"},
        node("SaveImage", images=["none", 0]),
        node("SaveImage", images=["2", 0, 0]),
        node("SaveImage", images=[]),
    ],
)
def test_what_does_not_is_named(added):
    assert watch.ungated({**GATED, "9": added}, CLASSES) == ["9"]


def test_the_hosts_check_is_asked_only_about_what_may_be_shown():
    async def validate_prompt(prompt_id, prompt, partial_execution_list):
        return True, None, [prompt_id], partial_execution_list

    execution = types.SimpleNamespace(validate_prompt=validate_prompt)
    latent_preview = types.SimpleNamespace(get_previewer=lambda device, latent_format: "a previewer")
    watch.watch(execution, latent_preview, CLASSES)
    assert latent_preview.get_previewer("cpu", None) is None
    assert asyncio.run(execution.validate_prompt("p", GATED, None)) == (True, None, ["p"], None)
    bad = {**GATED, "9": node("SaveImage", images=["1", 0])}
    valid, told, outputs, errors = asyncio.run(execution.validate_prompt("p", prompt=bad, partial_execution_list=["3"]))
    assert (valid, told["type"], outputs, list(errors)) == (False, "cluegate_ungated", [], ["9"])
    for malformed in ({"1": {}}, {"1": "a node"}, None):
        with pytest.raises((KeyError, TypeError, AttributeError)):
            asyncio.run(execution.validate_prompt("p", malformed, None))


def test_an_old_comfyui_is_not_stood_before_in_vain():
    execution = types.SimpleNamespace(validate_prompt=lambda prompt: (True, None, [], []))
    with pytest.raises(RuntimeError, match="expected a ComfyUI"):
        watch.watch(execution, types.SimpleNamespace(), CLASSES)
