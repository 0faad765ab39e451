"""The pictures of one call, and how one of them is drawn by itself."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluegate_client import DrawAgain

#: Arguments of a call that have one entry for each prompt.
PER_PROMPT = (
    "prompt", "prompt_2", "prompt_3", "negative_prompt", "negative_prompt_2", "negative_prompt_3", "image", "mask_image",
    "prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds",
    "prompt_embeds_mask", "negative_prompt_embeds_mask", "prompt_attention_mask", "negative_prompt_attention_mask",
)  # fmt: skip
#: Keys that fix the noise of the first attempt: with them another would be the same picture again.
NOISE = ("latents",)


@dataclass(frozen=True)
class Call:
    """A call of a pipeline, taken apart."""

    arguments: Mapping[str, Any]
    parameters: frozenset[str]
    #: One for each prompt.
    prompts: tuple[str, ...]
    #: Pictures of each prompt.
    each: int

    @classmethod
    def of(cls, method: Any, pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        signature = inspect.signature(method)
        bound = signature.bind(pipe, *args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        arguments.pop(next(iter(signature.parameters)))
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                arguments.update(arguments.pop(name, {}))
        if arguments.get("output_type", "pil") == "latent":
            raise ValueError("a guarded pipeline returns pictures: output_type='latent' would return what nobody judged")
        each = arguments.get("num_images_per_prompt") or 1
        return cls(arguments, frozenset(arguments), cls._prompts(arguments), int(each))

    @staticmethod
    def _prompts(arguments: Mapping[str, Any]) -> tuple[str, ...]:
        prompt = arguments.get("prompt")
        if isinstance(prompt, str):
            return (prompt,)
        if prompt is not None:
            return tuple(str(one) for one in prompt)
        embeds = arguments.get("prompt_embeds")
        # What they say in words nobody knows.
        return ("",) * (len(embeds) if embeds is not None else 1)

    @property
    def count(self) -> int:
        """Number of pictures."""
        return len(self.prompts) * self.each

    @property
    def steps(self) -> int | None:
        """Steps of the loop, as far as the call says."""
        steps = self.arguments.get("num_inference_steps")
        for name in ("timesteps", "sigmas"):
            if self.arguments.get(name) is not None:
                return len(self.arguments[name])
        return int(steps) if steps else None

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height, as far as the call says."""
        width, height = self.arguments.get("width"), self.arguments.get("height")
        return (int(width), int(height)) if width and height else None

    def seed(self, index: int) -> int | None:
        """The first seed of a prompt's pictures, if the caller brought generators."""
        generators = self.arguments.get("generator")
        if isinstance(generators, (list, tuple)):
            generators = generators[index * self.each] if index * self.each < len(generators) else None
        return generators.initial_seed() if generators is not None else None

    def again(self, index: int, order: DrawAgain, use_avoid: bool) -> dict[str, Any]:
        """The arguments that draw one picture of a prompt with another seed, and from other words if there are any."""
        arguments = {name: value for name, value in self.arguments.items() if name not in NOISE}
        many = len(self.prompts)
        for name in PER_PROMPT:
            if name in arguments and _has_each(arguments[name], many, name):
                arguments[name] = arguments[name][index : index + 1]
        arguments["num_images_per_prompt"] = 1
        if "num_images_per_prompt" not in self.parameters:
            del arguments["num_images_per_prompt"]
        if "generator" in self.parameters:
            arguments["generator"] = generator(order.seed)
        if order.prompt is not None:
            _rewrite(arguments, order.prompt)
        if use_avoid and order.avoid and "negative_prompt" in self.parameters:
            _avoid(arguments, order.avoid)
        return arguments


def _has_each(value: Any, many: int, name: str) -> bool:
    """Whether a value has one entry for each prompt."""
    if value is None or isinstance(value, str):
        return False
    if isinstance(value, (list, tuple)):
        return len(value) == many
    shape = getattr(value, "shape", None)
    return shape is not None and len(shape) >= (4 if "image" in name else 2) and shape[0] == many


def _rewrite(arguments: dict[str, Any], prompt: str) -> None:
    """Draws from these words, where the caller gave words."""
    if arguments.get("prompt") is None:
        # Embeddings say the same as before; the seed is another.
        return
    arguments["prompt"] = [prompt] if isinstance(arguments["prompt"], (list, tuple)) else prompt
    for name in ("prompt_2", "prompt_3"):
        # What other encoders were told says what was to be drawn before. Without it they are told the prompt.
        if arguments.get(name) is not None:
            arguments[name] = None


def _avoid(arguments: dict[str, Any], words: tuple[str, ...]) -> None:
    """Adds words to the negative prompt, where it is a text."""
    if arguments.get("negative_prompt_embeds") is not None:
        return
    known = arguments.get("negative_prompt")
    known = known[0] if isinstance(known, (list, tuple)) and known else known
    text = ", ".join([*([known] if known else []), *words])
    arguments["negative_prompt"] = [text] if isinstance(arguments.get("prompt"), (list, tuple)) else text


def generator(seed: int) -> Any:
    """A generator of noise that draws the same wherever the pipeline computes."""
    import torch

    return torch.Generator("cpu").manual_seed(seed % (1 << 63))
