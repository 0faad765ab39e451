"""The nodes. A workflow names a tenant by a word; address and keys lie with whoever runs the server.

    CLUEGATE_URL=http://127.0.0.1:7800 CLUEGATE_KEY=cg_... python main.py

`CLUEGATE_KEY_NEWSROOM` is the key of the choice `newsroom`, and so on: each key belongs to a tenant, and its policy names
the constitution. A key in a workflow would be saved in every picture that the workflow makes.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import numpy as np
import torch
from cluegate_client import Gate, GateError, HttpGate, Outcome, Request, judge
from PIL import Image

#: Choices are named by these variables.
KEY = "CLUEGATE_KEY"
#: The choice of `CLUEGATE_KEY` itself.
DEFAULT = "default"


def choices() -> list[str]:
    """The tenants that the environment has keys of."""
    named = [name[len(KEY) + 1 :].lower() for name in os.environ if re.fullmatch(KEY + r"_[A-Z0-9_]+", name)]
    return [DEFAULT, *sorted(named)]


def gate_of(choice: str, timeout: float) -> Gate:
    """The gate by which a choice is judged. Raises GateError if nobody has set it up."""
    url = os.environ.get("CLUEGATE_URL", "http://127.0.0.1:7800")
    name = KEY if choice == DEFAULT else f"{KEY}_{choice.upper()}"
    key = os.environ.get(name)
    if choice != DEFAULT and not key:
        raise GateError(f"there is no key for {choice!r}: set {name} where ComfyUI is started")
    return HttpGate(url, key, timeout=timeout)


def gated(gate: Gate, images: Any, prompt: str) -> tuple[Any, list[Outcome]]:
    """What may be shown of a batch (N, H, W, C, from 0 to 1), and its outcomes. What has no picture is black."""
    values = images.detach().float().cpu().nan_to_num().clamp(0, 1).numpy()
    pictures = [Image.fromarray((255 * one[..., :3]).round().astype(np.uint8)) for one in values]
    judged = judge(gate, pictures, Request(prompt, generator="ComfyUI"))
    shown = np.zeros((*values.shape[:3], 3), dtype=np.float32)
    for index, (picture, _) in enumerate(judged):
        if picture is not None:
            sized = picture.convert("RGB").resize((values.shape[2], values.shape[1]))
            shown[index] = np.asarray(sized, dtype=np.float32) / 255
    return torch.from_numpy(shown), [outcome for _, outcome in judged]


def verdict(outcomes: list[Outcome]) -> str:
    """Outcomes as JSON, as nodes hand them on."""
    told = [
        {"member": one.member, "outcome": one.outcome, "reason": one.reason, "message": one.message,
         "decision_id": one.decision_id, "violated": list(one.violated), "flagged": one.flagged}
        for one in outcomes
    ]  # fmt: skip
    return json.dumps(told)


class CluegateGate:
    """Chooses by whose constitution pictures are judged."""

    CATEGORY = "cluegate"
    RETURN_TYPES = ("CLUEGATE",)
    RETURN_NAMES = ("gate",)
    FUNCTION = "choose"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        seconds = {"default": 60.0, "min": 0.1, "max": 3600.0}
        return {"required": {"constitution": (choices(),), "timeout_s": ("FLOAT", seconds)}}

    def choose(self, constitution: str, timeout_s: float) -> tuple[Gate]:
        return (gate_of(constitution, timeout_s),)


class _Judging:
    """Judges each time: a verdict is of now, and must not come from ComfyUI's cache."""

    CATEGORY = "cluegate"
    FUNCTION = "gate"
    #: What is judged.
    NEEDS: dict[str, Any] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        prompt = {"default": "", "multiline": True}
        needed = {**cls.NEEDS, "gate": ("CLUEGATE",)}
        return {"required": needed, "optional": {"prompt": ("STRING", prompt)}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        # Not a number is never what it was.
        return float("nan")


class CluegateImages(_Judging):
    """Lets released pictures through, redacted where the policy says so; in place of others stands the placeholder."""

    RETURN_TYPES = ("IMAGE", "CLUEGATE_VERDICT")
    RETURN_NAMES = ("images", "verdict")
    NEEDS = {"images": ("IMAGE",)}

    def gate(self, images: Any, gate: Gate, prompt: str = "") -> Any:
        shown, outcomes = gated(gate, images, prompt)
        told = verdict(outcomes)
        return {"ui": {"cluegate": [told]}, "result": (shown, told)}


class CluegateLatents(_Judging):
    """Lets latents through whose pictures are released as they are; others, and what would be redacted, become zeros."""

    RETURN_TYPES = ("LATENT", "CLUEGATE_VERDICT")
    RETURN_NAMES = ("latents", "verdict")
    NEEDS = {"samples": ("LATENT",), "vae": ("VAE",)}

    def gate(self, samples: Any, vae: Any, gate: Gate, prompt: str = "") -> Any:
        images = vae.decode(samples["samples"])
        images = images.reshape(-1, *images.shape[-3:])
        _, outcomes = gated(gate, images, prompt)
        latents = samples["samples"].clone()
        if len(outcomes) != len(latents):
            raise RuntimeError(f"expected a picture for each of {len(latents)} latents, got {len(outcomes)}")
        for index, outcome in enumerate(outcomes):
            if outcome.flagged:
                latents[index] = 0
        told = verdict(outcomes)
        return {"ui": {"cluegate": [told]}, "result": ({**samples, "samples": latents}, told)}


class CluegateVerdict:
    """Reads a verdict: whether all were released as they came, how many were not, and all of it as JSON."""

    CATEGORY = "cluegate"
    RETURN_TYPES = ("BOOLEAN", "INT", "STRING")
    RETURN_NAMES = ("all_released", "flagged", "json")
    FUNCTION = "read"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"verdict": ("CLUEGATE_VERDICT",)}}

    def read(self, verdict: str) -> Any:
        flagged = sum(one["flagged"] for one in json.loads(verdict))
        return {"ui": {"text": [verdict]}, "result": (flagged == 0, flagged, verdict)}
