"""A pipeline whose call returns released pictures and nothing else."""

from __future__ import annotations

import logging
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from cluegate_client import Gate, HttpGate, Outcome
from PIL import Image

from .latents import Decoder
from .members import Call
from .run import Run

log = logging.getLogger("cluegate")

#: The run in whose name this thread decodes.
ACTIVE: ContextVar[Run | None] = ContextVar("cluegate_run", default=None)


class UngatedDecode(RuntimeError):
    """Latents of a guarded pipeline were to be decoded outside of its own call: nobody would judge the picture."""


@dataclass
class GuardedOutput:
    """What a guarded pipeline returns: as many outcomes as pictures were asked for. Like the outputs of diffusers it is read
    by attribute, by name and by index."""

    #: The released pictures, in order. Where one was not released stands the policy's placeholder, or None; in arrays, black.
    images: Any
    #: Whether the policy did not release the picture as it came: withheld, held or redacted.
    nsfw_content_detected: list[bool]
    outcomes: list[Outcome] = field(default_factory=list)

    def to_tuple(self) -> tuple[Any, ...]:
        """All fields, in order."""
        return self.images, self.nsfw_content_detected, self.outcomes

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]


@dataclass(frozen=True)
class GuardOptions:
    """What a host may choose."""

    #: The model's name, which chooses among the policy's ``model`` tables; by default where the pipeline was loaded from.
    model: str | None = None
    #: Most attempts at one picture; by default as many as the policy allows.
    max_tries: int | None = None
    #: Whether the statements that made an attempt violate a rule go into the next one's negative prompt. The gate tells
    #: them where the policy says ``client.instructions = true``.
    avoid: bool = True
    #: Whether the loop waits for the verdict on a preview before its next step. Otherwise it draws on, and an attempt that is
    #: given up ends after the step at which the verdict is there; no picture is decoded before it.
    wait_for_previews: bool = False
    #: Shows latents that this package does not know.
    decoder: Decoder | None = None


class _Guard:
    """What a guarded pipeline has."""

    def __init__(self, gate: Gate, options: GuardOptions) -> None:
        self.gate, self.options = gate, options
        self.one_at_a_time = threading.RLock()
        #: Of the last call.
        self.outcomes: list[Outcome] = []


def guard(
    pipe: Any,
    gate: Gate | None = None,
    *,
    url: str | None = None,
    key: str | None = None,
    tenant: str | None = None,
    options: GuardOptions | None = None,
    **more: Any,
) -> Any:
    """Guards a diffusers pipeline, and returns it.

    ``gate`` is an HttpGate or an EmbeddedGate; ``url`` and ``key`` stand for ``HttpGate(url, key)``, and ``tenant`` (with
    ``policy`` and the like) for ``EmbeddedGate(tenant, ...)``. The pipeline itself is changed: whoever holds it calls the
    guarded one, and its autoencoder decodes nothing outside of such a call.
    """
    if hasattr(pipe, "cluegate"):
        raise ValueError("this pipeline is guarded already")
    if sum(one is not None for one in (gate, url, tenant)) != 1:
        raise ValueError("expected one of a gate, the `url` of a gateway, and the `tenant` of a gate in this process")
    if gate is None and url is not None:
        gate = HttpGate(url, key, **more)
    elif gate is None:
        from cluegate_client import EmbeddedGate

        gate = EmbeddedGate(str(tenant), **more)
    elif more or key is not None:
        raise ValueError(f"a gate was given; {', '.join([*more, *(['key'] if key else [])])} says nothing more")
    bare = type(pipe)
    if not callable(pipe):
        raise TypeError(f"expected a pipeline that can be called, got {bare.__name__}")
    guarded = type(bare.__name__, (_Guarded, bare), {"__module__": bare.__module__, "_cluegate_bare": bare})
    pipe.__class__ = guarded
    # Around `__setattr__` of the pipeline, which keeps its components in a configuration.
    pipe.__dict__["cluegate"] = _Guard(gate, options or GuardOptions())
    _watch_decoder(pipe)
    return pipe


class _Guarded:
    """Mixed in before a pipeline's class."""

    cluegate: _Guard
    _cluegate_bare: type

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        own, bare = self.cluegate, self._cluegate_bare
        call = Call.of(bare.__call__, self, args, kwargs)
        with own.one_at_a_time:
            # It may have another autoencoder by now.
            _watch_decoder(self)
            run = Run(self, bare.__call__, own.gate, call, own.options)
            token = ACTIVE.set(run)
            try:
                run.work()
            finally:
                ACTIVE.reset(token)
                own.outcomes = run.outcomes()
        return _output(self, call, run)


def _watch_decoder(pipe: Any) -> None:
    """Lets the autoencoder decode only for a run of the guard, and never what a run has discarded."""
    vae = getattr(pipe, "vae", None)
    if vae is None or "_cluegate_decode" in vae.__dict__:
        return
    bare = vae.decode

    def decode(z: Any, *args: Any, **kwargs: Any) -> Any:
        run = ACTIVE.get()
        if run is None or run.is_lent:
            raise UngatedDecode(
                "this autoencoder belongs to a guarded pipeline: call the pipeline, which has its pictures judged; previews "
                "are the policy's (`previews`, `client.previews`)"
            )
        return bare(run.kept(z), *args, **kwargs)

    vae.__dict__["_cluegate_decode"] = bare
    vae.__dict__["decode"] = decode


def _output(pipe: Any, call: Call, run: Run) -> Any:
    outcomes = run.outcomes()
    flags = [outcome.flagged for outcome in outcomes]
    images = _as_asked(run.shown(), call)
    for outcome in outcomes:
        if not outcome.released:
            log.warning("picture %d: %s (%s)", outcome.member, outcome.message, outcome.reason)
    if call.arguments.get("return_dict", True):
        return GuardedOutput(images=images, nsfw_content_detected=flags, outcomes=outcomes)
    # As long as the bare pipeline's: those with a checker's slot have a second entry.
    return (images, flags) if hasattr(pipe, "safety_checker") else (images,)


def _as_asked(images: list[Image.Image | None], call: Call) -> Any:
    """The pictures as ``output_type`` asks. Arrays have the released pictures' 8 bits."""
    kind = call.arguments.get("output_type", "pil")
    if kind == "pil":
        return images
    import numpy as np

    sizes = {image.size for image in images if image is not None}
    size = sizes.pop() if sizes else call.size or (512, 512)
    filled = [image if image is not None else Image.new("RGB", size) for image in images]
    filled = [image if image.size == size else image.resize(size) for image in filled]
    stacked = np.stack([np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0 for image in filled])
    if kind == "np":
        return stacked
    if kind == "pt":
        import torch

        return torch.from_numpy(stacked).permute(0, 3, 1, 2)
    raise ValueError(f"expected output_type pil, np or pt, got {kind!r}")
