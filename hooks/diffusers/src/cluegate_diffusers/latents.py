"""What a pipeline's latents look like, for previews."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

#: Shows the latents of one picture: pipeline, latents of shape (1, ...), and (width, height) or None.
Decoder = Callable[[Any, Any, "tuple[int, int] | None"], Image.Image]


def decode(pipe: Any, latents: Any, size: tuple[int, int] | None, vae_decode: Callable[..., Any]) -> Image.Image:
    """Decodes the latents of one picture as its pipeline does at its end.

    Knows the two layouts of today's pipelines: planes (Stable Diffusion 1 to 3, XL), and tokens of 2 x 2 patches that the
    pipeline unpacks itself (Flux). Raises ValueError for another: name a ``decoder`` for it, or a policy without previews.
    """
    import torch

    vae, config = pipe.vae, pipe.vae.config
    with torch.no_grad():
        if latents.ndim == 3 and hasattr(pipe, "_unpack_latents"):
            width, height = size or (None, None)
            side = pipe.default_sample_size * pipe.vae_scale_factor if hasattr(pipe, "default_sample_size") else None
            width, height = width or side, height or side
            if not width or not height:
                raise ValueError("previews of packed latents need the picture's width and height")
            latents = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
        if latents.ndim != 4:
            shape = tuple(latents.shape)
            raise ValueError(f"expected latents of a picture, got {shape}: name a `decoder` that shows them")
        if getattr(config, "latents_mean", None) is not None and getattr(config, "latents_std", None) is not None:
            mean, std = (
                torch.tensor(values, device=latents.device, dtype=latents.dtype).view(1, -1, 1, 1)
                for values in (config.latents_mean, config.latents_std)
            )
            latents = latents * std / config.scaling_factor + mean
        else:
            latents = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
        # A decoder in half precision may overflow; then the preview is black, and the gate draws on.
        decoded = vae_decode(latents.to(vae.dtype), return_dict=False)[0]
        return pipe.image_processor.postprocess(decoded.float(), output_type="pil")[0].convert("RGB")
