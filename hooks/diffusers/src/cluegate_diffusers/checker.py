"""A gate in the slot of Stable Diffusion's safety checker."""

from __future__ import annotations

from typing import Any

import numpy as np
from cluegate_client import Gate, Outcome, Request, judge
from PIL import Image


class SafetyChecker:
    """Judges what ``safety_checker(images=..., clip_input=...)`` is asked, and answers ``(images, list[bool])``.

    For pipelines with that slot; ``guard`` does more (previews, regeneration) and knows every pipeline. A flagged picture is
    replaced by the redacted one, the policy's placeholder, or black, and a gate that gives no answer flags. The pipeline
    skips its checker for ``output_type="latent"``: ``guard`` refuses that.
    """

    def __init__(self, gate: Gate, *, model: str | None = None) -> None:
        self._gate, self._model = gate, model
        #: Of the last call, one for each picture.
        self.outcomes: list[Outcome] = []

    def install(self, pipe: Any) -> Any:
        """Puts the checker into the slot of ``pipe``, with a feature extractor that computes nothing, and returns the pipeline."""
        if not hasattr(pipe, "safety_checker"):
            raise TypeError(f"{type(pipe).__name__} has no slot for a safety checker: use guard()")
        pipe.safety_checker = self
        pipe.feature_extractor = _NoFeatures()
        return pipe

    def __call__(self, images: Any, clip_input: Any = None) -> tuple[Any, list[bool]]:
        """``images`` is a tensor (N, C, H, W) of -1 to 1, or an array (N, H, W, C) of 0 to 1, and comes back as it is but
        for flagged ones: those are from 0 to 1, as the pipelines expect of them."""
        is_array = isinstance(images, np.ndarray)
        values = images if is_array else images.detach().float().cpu().permute(0, 2, 3, 1).numpy() / 2 + 0.5
        bytes_ = (np.nan_to_num(values).clip(0.0, 1.0) * 255).round().astype(np.uint8)
        pictures = [Image.fromarray(one) for one in bytes_]
        judged = judge(self._gate, pictures, Request("", model=self._model))
        self.outcomes = [outcome for _, outcome in judged]
        answer = images.copy() if is_array else images.clone()
        for index, (shown, outcome) in enumerate(judged):
            if outcome.flagged:
                answer[index] = self._stand_in(shown, answer[index], is_array)
        return answer, [outcome.flagged for outcome in self.outcomes]

    @staticmethod
    def _stand_in(shown: Image.Image | None, like: Any, is_array: bool) -> Any:
        height, width = like.shape[:2] if is_array else like.shape[-2:]
        shown = shown or Image.new("RGB", (width, height))
        values = np.asarray(shown.convert("RGB").resize((width, height)), dtype=np.float32) / 255.0
        if is_array:
            return values
        import torch

        return torch.from_numpy(values).permute(2, 0, 1).to(like)


class _NoFeatures:
    """Takes the place of CLIP's preprocessing, whose result the gate does not need."""

    class _Nothing:
        pixel_values = np.zeros(0, dtype=np.float32)

        def __init__(self) -> None:
            import torch

            self.pixel_values = torch.zeros(0)

        def to(self, _device: Any) -> Any:
            return self

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        return self._Nothing()
