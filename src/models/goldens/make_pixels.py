"""Writes the pictures that the goldens of this folder share, and what resizing makes of them.

    pip install torch==2.11.0 torchvision==0.26.0 pillow==13.0.0 safetensors
    python make_pixels.py

Written: pixels/*.png (several sizes and shapes) and pixels/resized.safetensors with 8-bit results of shape
(height, width, 3) named `<picture>/<width>x<height>/<filter>/<library>`. Pillow's have to be met exactly,
torchvision's (the default backend of transformers 5.17) within one grey level.
The width is resized first in both: torchvision always does so, and Pillow 13 is asked for one axis at a time, because on
its own it sometimes begins with the height, which hard edges show (older versions never do). `nearest` is torchvision's
alone, to be met exactly, because the two break ties in different ways.
"""

from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.v2.functional as tvF
from PIL import Image, ImageDraw
from safetensors.numpy import save_file
from torchvision.transforms import InterpolationMode

HERE = Path(__file__).parent / "pixels"
SIZES = {"square": (32, 32), "wide": (97, 41), "tall": (37, 64), "strip": (120, 11), "small": (13, 17), "large": (150, 113)}
TARGETS = [(24, 24), (50, 30)]
FILTERS = {
    "nearest": (None, InterpolationMode.NEAREST_EXACT),
    "lanczos": (Image.Resampling.LANCZOS, None),
    "bilinear": (Image.Resampling.BILINEAR, InterpolationMode.BILINEAR),
    "bicubic": (Image.Resampling.BICUBIC, InterpolationMode.BICUBIC),
}


def draw(name: str, width: int, height: int) -> Image.Image:
    """A gradient with shapes of hard edges, thin lines and some noise."""
    rng = np.random.default_rng(sum(name.encode()))
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1), 128 + 0 * x], -1)
    picture = Image.fromarray(base.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(6):
        colour = tuple(int(c) for c in rng.integers(0, 2, 3) * 255)
        x0, y0 = int(rng.integers(0, width)), int(rng.integers(0, height))
        box = [x0, y0, x0 + int(rng.integers(2, width)), y0 + int(rng.integers(2, height))]
        if rng.random() < 0.5:
            pen.ellipse(box, fill=colour)
        else:
            pen.line(box, fill=colour)
    noisy = np.asarray(picture).astype(int)
    spots = rng.random((height, width)) < 0.05
    noisy[spots] = rng.integers(0, 256, (int(spots.sum()), 3))
    return Image.fromarray(noisy.astype(np.uint8))


def main() -> None:
    HERE.mkdir(exist_ok=True)
    out = {}
    for name, size in SIZES.items():
        picture = draw(name, *size)
        picture.save(HERE / f"{name}.png", optimize=True)
        tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        for width, height in TARGETS:
            for label, (pillow, torchvision) in FILTERS.items():
                key = f"{name}/{width}x{height}/{label}"
                if pillow is not None:
                    out[f"{key}/pillow"] = np.array(picture.resize((width, picture.height), pillow).resize((width, height), pillow))
                if torchvision is not None:
                    resized = tvF.resize(tensor, [height, width], interpolation=torchvision, antialias=True)
                    out[f"{key}/torchvision"] = resized.permute(1, 2, 0).contiguous().numpy()
    save_file(out, HERE / "resized.safetensors")


if __name__ == "__main__":
    main()
