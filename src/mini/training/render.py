"""Draws scenes of `world.py` in batches on a GPU (or CPU), and corrupts pictures as files and generators do.

Sprites are a tensor; each slot of the batch is one `affine_grid` + `grid_sample` and an alpha composite. Everything
random comes from a torch.Generator on the pictures' device, so that a seed fixes a batch.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

import world
from world import BACKGROUNDS, CLASSES, HAZARDS, OTHER_BACKGROUND, SIDE, SUBJECTS

GRID = 8  # cells a side of the cover maps: one for each merged image token of the judge
BONDS = [(s, h) for s in SUBJECTS for h in HAZARDS]
BOND = {bond: i for i, bond in enumerate(BONDS)}
MEAN_COLOUR = (0.48145466, 0.4578275, 0.40821073)  # CLIP's and Qwen2-VL's mean: neutral after normalisation


@dataclass
class Packed:
    """A batch of scenes as arrays, cheap to send from a worker process; slots beyond a scene's objects have size 0."""

    sprite: np.ndarray      # (B, N) int64
    cls: np.ndarray         # (B, N) int64
    place: np.ndarray       # (B, N, 5) float32: x, y, size, flip (1 or -1), angle
    bonds: np.ndarray       # (B, N, len(BONDS)) bool: kinds of touching in which the object takes part
    background: np.ndarray  # (B,) int64
    fills: np.ndarray       # (B, M, 4) float32, empty boxes are all zero

    def __len__(self):
        return len(self.sprite)


def pack(scenes):
    """Scenes to arrays."""
    slots = max(1, max(len(s.objects) for s in scenes))
    fills = max(len(s.fills) for s in scenes)
    size = (len(scenes), slots)
    out = Packed(np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros((*size, 5), np.float32),
                 np.zeros((*size, len(BONDS)), bool), np.array([s.background for s in scenes]),
                 np.zeros((len(scenes), fills, 4), np.float32))
    for b, scene in enumerate(scenes):
        for n, o in enumerate(scene.objects):
            out.sprite[b, n], out.cls[b, n] = o.sprite, o.cls
            out.place[b, n] = o.x, o.y, o.size, -1 if o.flip else 1, o.angle
        for s, h in scene.touches:
            subject, hazard = scene.objects[s], scene.objects[h]
            if not (subject.gone or hazard.gone):
                out.bonds[b, [s, h], BOND[subject.category, hazard.category]] = True
        for n, fill in enumerate(scene.fills):
            out.fills[b, n] = fill
    return out


class _Atlas:
    """Sprites with premultiplied alpha at several sharpnesses, on one device: (levels, sprites, 4, 96, 96)."""

    sizes = (96, 64, 44, 30, 20)
    _on = {}

    @classmethod
    def on(cls, device):
        key = str(torch.device(device))
        if key not in cls._on:
            full = torch.from_numpy(world.atlas().copy()).permute(0, 3, 1, 2).float().to(device) / 255
            full[:, :3] *= full[:, 3:]
            levels = [full if n == 96 else F.interpolate(
                F.interpolate(full, size=(n, n), mode="bilinear", antialias=True), size=(96, 96), mode="bilinear")
                for n in cls.sizes]
            cls._on[key] = torch.stack(levels)
        return cls._on[key]


class _Random:
    """Random numbers: fields on the device, choices on the CPU, so that no choice has to wait for the device."""

    def __init__(self, device, generator):
        self.device, self.generator = device, generator
        self.choices = None
        if generator is not None:
            seed = torch.randint(2**31, (1,), device=device, generator=generator).item()
            self.choices = torch.Generator().manual_seed(seed)

    def at(self, share, count):
        """Numbers of a random `share` of `count` pictures."""
        return (torch.rand(count, generator=self.choices) < share).nonzero()[:, 0].to(self.device, non_blocking=True)

    def number(self):
        """One uniform number."""
        return torch.rand(1, generator=self.choices).item()

    def kinds(self, weights, count):
        """`count` draws from `weights`, on the CPU."""
        return torch.multinomial(torch.tensor(weights), count, replacement=True, generator=self.choices)

    def uniform(self, *size, low=0.0, high=1.0):
        return torch.rand(*size, device=self.device, generator=self.generator) * (high - low) + low

    def normal(self, *size):
        return torch.randn(*size, device=self.device, generator=self.generator)

    def chance(self, share, *size):
        return torch.rand(*size, device=self.device, generator=self.generator) < share


def generator_for(device, seed):
    """A seeded generator on `device`, or None (torch's own state) without a seed."""
    return None if seed is None else torch.Generator(device=device).manual_seed(seed)


def _theta(place, shift=None):
    """Affine matrices (B, 2, 3) from picture to sprite coordinates, both -1..1: undo move, scale, turn, mirror."""
    x, y, size, flip, angle = place.unbind(-1)
    if shift is not None:
        x, y = x + shift[:, 0], y + shift[:, 1]
    scale = SIDE / size.clamp(min=1e-3)
    c, s = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = torch.stack([torch.stack([c * flip, s * flip], -1), torch.stack([-s, c], -1)], -2)
    centre = torch.stack([x, y], -1) / (SIDE / 2) - 1
    return torch.cat([rows, -(rows @ centre[..., None])], -1)


def _colours(r, count, sites):
    """Random colours (count, sites, 3): dark, bright, dull and vivid ones; those of one picture may be alike."""
    hue = r.uniform(count, sites, 1) + torch.tensor([0.0, 1 / 3, 2 / 3], device=r.device)
    vivid = r.uniform(count, sites, 1) ** 1.5
    pure = torch.cos(hue * 2 * math.pi) * 0.5 + 0.5
    mood = r.uniform(count, 1, 1)  # by picture: dark, bright, or anything
    light = r.uniform(count, sites, 1)
    light = torch.where(mood < 0.14, light * 0.25, torch.where(mood > 0.55, 1 - light * 0.35, light))
    colour = light * (1 - vivid * (1 - pure))
    alike = r.uniform(count, 1, 1) ** 0.5
    return (colour[:, :1] + (colour - colour[:, :1]) * alike).clamp(0, 1)


def _ramp(r, count, size):
    """Coordinates along a random direction (count, size, size), about -1..1."""
    axis = torch.linspace(-1, 1, size, device=r.device)
    turn = r.uniform(count, 1, 1, high=2 * math.pi)
    return axis[None, None] * torch.cos(turn) + axis[None, :, None] * torch.sin(turn)


def _soft(r, count, cells, size, channels=1):
    """Smooth random fields (count, channels, size, size) of about unit variance."""
    return F.interpolate(r.normal(count, channels, cells, cells), size=(size, size), mode="bicubic")


def _mix(low, high, share):
    """Colours (n, 3) mixed by (n, size, size) shares into pictures."""
    share = share[:, None]
    return low[:, :, None, None] * (1 - share) + high[:, :, None, None] * share


def _horizon(r, count, size, top, bottom, tilt):
    axis = torch.linspace(0, 1, size, device=r.device)
    level = axis[None, :, None] + (axis[None, None] - 0.5) * (r.uniform(count, 1, 1, low=-1) * tilt)
    edge = 5 * 2.0 ** r.uniform(count, 1, 1, high=5)
    return _mix(top, bottom, torch.sigmoid((level - r.uniform(count, 1, 1, low=0.15, high=0.9)) * edge))


def _world_backgrounds(r, kinds, size):
    """The two-tone backgrounds of the world, colours jittered."""
    table = torch.tensor([[b["top"], b["bottom"]] for b in BACKGROUNDS], device=r.device) / 255
    pair = (table[kinds] + (r.uniform(len(kinds), 2, 3) - 0.5) * 0.2).clamp(0, 1)
    return _horizon(r, len(kinds), size, pair[:, 0], pair[:, 1], r.chance(0.2, len(kinds), 1, 1) * 0.3)


def _voronoi(r, count, size):
    """Random cells of plain colour."""
    axis = torch.linspace(0, 1, size, device=r.device)
    sites = r.uniform(count, 7, 2, low=-0.2, high=1.2)
    across = (axis[None, None, None] - sites[:, :, 0, None, None]) ** 2
    down = (axis[None, None, :, None] - sites[:, :, 1, None, None]) ** 2
    nearest = (across + down).argmin(1)
    colours = _colours(r, count, 7)
    picked = torch.gather(colours, 1, nearest.flatten(1)[..., None].expand(-1, -1, 3))
    return picked.transpose(1, 2).reshape(count, 3, size, size)


def _pattern(r, count, size):
    """Stripes or checkers, mostly of low contrast."""
    pair = _colours(r, count, 2)
    contrast = r.uniform(count, 1) ** 2 * 0.7 + 0.05
    other = pair[:, 0] + (pair[:, 1] - pair[:, 0]) * contrast
    period = 2.0 ** r.uniform(count, 1, 1, low=1, high=4.5)
    one, two = _ramp(r, count, size), _ramp(r, count, size)
    wave = torch.sin(one * period * math.pi)
    wave = torch.where(r.chance(0.4, count, 1, 1), wave * torch.sin(two * period * math.pi), wave)
    return _mix(pair[:, 0], other, torch.sigmoid(wave * 2.0 ** r.uniform(count, 1, 1, high=5)))


def _other_backgrounds(r, count, size):
    """Backgrounds of many makes, so that none of them can be relied on."""
    kind = r.kinds([12.0, 14, 12, 12, 8, 10, 8, 16], count)
    out = torch.empty(count, 3, size, size, device=r.device)
    for k in range(8):
        at = (kind == k).nonzero()[:, 0].to(r.device, non_blocking=True)
        n = len(at)
        if n == 0:
            continue
        pair = _colours(r, n, 2)
        if k == 0:
            grey = torch.where(r.chance(0.25, n, 1), r.uniform(n, 1).round(), pair[:, 0])  # some white, some black
            made = grey[:, :, None, None].expand(n, 3, size, size)
        elif k == 1:
            line, axis = _ramp(r, n, size) * 0.5 + 0.5, torch.linspace(-1, 1, size, device=r.device)
            ring = torch.hypot(axis, axis[:, None])[None] * r.uniform(n, 1, 1, low=0.5, high=1.0)
            made = _mix(pair[:, 0], pair[:, 1], torch.where(r.chance(0.3, n, 1, 1), ring, line).clamp(0, 1))
        elif k in (2, 3):
            made = _mix(pair[:, 0], pair[:, 1], torch.sigmoid(_soft(r, n, 4 if k == 2 else 9, size)[:, 0] * 2))
        elif k == 4:
            fields = sum(_soft(r, n, c, size, 3) * r.uniform(n, 1, 1, 1, high=0.12) for c in (5, 14, 40, 112))
            made = pair[:, 0, :, None, None] + fields
        elif k == 5:
            made = _voronoi(r, n, size)
        elif k == 6:
            made = _pattern(r, n, size)
        else:
            made = _horizon(r, n, size, pair[:, 0], pair[:, 1], r.chance(0.5, n, 1, 1) * 0.8)
        out[at] = made.clamp(0, 1)
    return out


def backgrounds(kinds, r, size):
    """(B,) background numbers, on the CPU, to pictures (B, 3, size, size), with faint texture and shading on most."""
    count = len(kinds)
    out = torch.empty(count, 3, size, size, device=r.device)
    other, known = ((kinds == OTHER_BACKGROUND) == flag for flag in (True, False))
    named = kinds[known].to(r.device, non_blocking=True)
    other, known = (mask.nonzero()[:, 0].to(r.device, non_blocking=True) for mask in (other, known))
    if len(known):
        out[known] = _world_backgrounds(r, named, size)
    if len(other):
        out[other] = _other_backgrounds(r, len(other), size)
    texture = _soft(r, count, 14, size, 3) * r.uniform(count, 1, 1, 1, high=0.06) * r.chance(0.5, count, 1, 1, 1)
    grain = _soft(r, count, 75, size) * r.uniform(count, 1, 1, 1, high=0.05) * r.chance(0.4, count, 1, 1, 1)
    shade = (_ramp(r, count, size) * r.uniform(count, 1, 1, low=-0.12, high=0.12))[:, None]
    return (out + texture + grain + shade * r.chance(0.4, count, 1, 1, 1)).clamp(0, 1)


def _tints(r, count, slots):
    """Each sprite's own brightness, contrast and saturation, as factors (count, slots, 3)."""
    spread = torch.tensor([0.22, 0.25, 0.35], device=r.device) * r.uniform(count, 1, 1)
    return 1 + r.uniform(count, slots, 3, low=-1) * spread


def _tint(sprite, tint):
    """Applies factors (B, 3) to premultiplied sprites (B, 4, H, W)."""
    bright, contrast, vivid = (t[:, None, None, None] for t in tint.unbind(-1))
    alpha, colour = sprite[:, 3:], sprite[:, :3]
    grey = colour.mean(1, keepdim=True)
    colour = grey + (colour - grey) * vivid
    colour = (colour - 0.5 * alpha) * contrast + 0.5 * alpha
    return torch.cat([torch.minimum((colour * bright).clamp(min=0), alpha), alpha], 1)


def _levels(r, place, size):
    """Sharpness level of each sprite (B, N): what its size in the picture calls for, give or take."""
    pixels = place[..., 2] * (size / SIDE) * 2.0 ** r.uniform(*place.shape[:2], low=-0.7, high=0.8)
    sizes = torch.tensor(_Atlas.sizes, device=r.device, dtype=torch.float)
    return (pixels[..., None] < sizes * 0.8).sum(-1).clamp(max=len(_Atlas.sizes) - 1)


def _cell_boxes(fills, size):
    """Masks (B, M, size, size) of the filled boxes."""
    axis = (torch.arange(size, device=fills.device) + 0.5) * (SIDE / size)
    left, top, right, bottom = (fills[..., i, None] for i in range(4))
    across = ((axis >= left) & (axis < right))[:, :, None]
    return across & ((axis >= top) & (axis < bottom))[..., None]


def _shadows(image, sprites, level, place, r, size):
    """Darkens the picture where some sprites' soft shadows fall."""
    count = len(image)
    strength = r.uniform(count, 1, 1, 1, low=0.1, high=0.5)
    shift = r.uniform(count, 2, low=-0.12, high=0.12) * place[:, 2:3] + torch.tensor([0.0, 3.0], device=r.device)
    cast = F.grid_sample(_Atlas.on(r.device)[-1][sprites][:, 3:],
                         F.affine_grid(_theta(place, shift), (count, 1, size, size), align_corners=False),
                         align_corners=False)
    return image * (1 - cast * strength)


@torch.no_grad()
def render(scenes, device, size=SIDE, cover=False, seed=None, vary=True, bonds=False):
    """Pictures (B, 3, size, size) in 0..1 of a list of scenes or a `Packed` batch.

    cover: also (B, classes, 8, 8), the share of each cell in which an object of the class is seen.
    bonds: also (B, len(BONDS), 8, 8), the same for objects that take part in a kind of touching.
    vary: jitter of the sprites' sharpness and colours, and shadows; without it only the background varies.
    """
    packed = scenes if isinstance(scenes, Packed) else pack(scenes)
    r = _Random(torch.device(device), generator_for(device, seed))
    count, slots = packed.sprite.shape
    sprite, cls, place, bond, fills = (torch.from_numpy(a).to(device, non_blocking=True) for a in (
        packed.sprite, packed.cls, packed.place, packed.bonds, packed.fills))
    image = backgrounds(torch.from_numpy(packed.background), r, size)
    level = _levels(r, place, size) if vary else (place[..., 2, None] * (size / SIDE) < torch.tensor(
        _Atlas.sizes, device=device) * 0.8).sum(-1).clamp(max=len(_Atlas.sizes) - 1)
    tints = _tints(r, count, slots) if vary else None
    shaded = r.at(0.22 if vary else 0.0, count)
    seen = torch.zeros(count, len(CLASSES), GRID, GRID, device=device) if cover else None
    bound = torch.zeros(count, len(BONDS), GRID, GRID, device=device) if bonds else None
    rows, levels = torch.arange(count, device=device), _Atlas.on(device)
    for n in range(slots):
        there = place[:, n, 2] > 0
        if len(shaded):
            image[shaded] = torch.where(there[shaded, None, None, None], _shadows(
                image[shaded], sprite[shaded, n], level[shaded, n], place[shaded, n], r, size), image[shaded])
        grid = F.affine_grid(_theta(place[:, n]), (count, 4, size, size), align_corners=False)
        drawn = F.grid_sample(levels[level[:, n], sprite[:, n]], grid, align_corners=False)
        drawn = drawn * there[:, None, None, None]
        if vary:
            drawn = _tint(drawn, tints[:, n])
        image = image * (1 - drawn[:, 3:]) + drawn[:, :3]
        if cover or bonds:
            cell = F.avg_pool2d(drawn[:, 3:], size // GRID)[:, 0]
        if cover:
            seen *= 1 - cell[:, None]
            seen[rows, cls[:, n]] = torch.maximum(seen[rows, cls[:, n]], cell)
        if bonds:
            mine = bond[:, n, :, None, None]
            bound = torch.where(mine, torch.maximum(bound, cell[:, None]), bound * (1 - cell[:, None]))
    if fills.shape[1]:
        hidden = _cell_boxes(fills, size).any(1)[:, None]
        neutral = torch.tensor(MEAN_COLOUR, device=device)[None, :, None, None]
        own = torch.where(r.chance(0.6, count, 1, 1, 1), image.mean((2, 3), keepdim=True), neutral)
        image = torch.where(hidden, own, image)
        left = 1 - F.avg_pool2d(hidden.float(), size // GRID)
        seen, bound = (seen * left if cover else None), (bound * left if bonds else None)
    image = image.clamp(0, 1)
    extra = [t for t in (seen, bound) if t is not None]
    return (image, *extra) if extra else image


# ---- what files and generators do to pictures ----

_LUMA = torch.tensor([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]]).float()
_CHROMA = torch.full((8, 8), 99.0)
_CHROMA[:4, :4] = torch.tensor([[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]).float()
_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def _cosines(device):
    k = torch.arange(8, device=device, dtype=torch.float)
    basis = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis


def _quantise(plane, table, quality):
    """Rounds the 8 x 8 cosine coefficients of planes (B, H, W) in 0..255 as JPEG does at `quality` (B,) 1..100."""
    count, height, width = plane.shape
    basis = _cosines(plane.device)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]
    step = ((table.to(plane.device) * scale + 50) / 100).clamp(1, 255)[:, None]
    blocks = (plane - 128).reshape(count, height // 8, 8, width // 8, 8).transpose(2, 3).reshape(count, -1, 8, 8)
    blocks = basis.T @ ((basis @ blocks @ basis.T / step).round() * step) @ basis
    return blocks.reshape(count, height // 8, width // 8, 8, 8).transpose(2, 3).reshape(count, height, width) + 128


def jpeg(images, quality):
    """What JPEG with halved chroma leaves of pictures (B, 3, H, W), sides a multiple of 16; quality (B,) 1..100."""
    ycc = torch.einsum("ij,bjhw->bihw", _YCC.to(images.device), images * 255)
    luma = _quantise(ycc[:, 0], _LUMA, quality)[:, None]
    half = F.avg_pool2d(ycc[:, 1:] + 128, 2)
    chroma = torch.stack([_quantise(half[:, i], _CHROMA, quality) for i in (0, 1)], 1) - 128
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear")
    back = torch.linalg.inv(_YCC).to(images.device)
    return (torch.einsum("ij,bjhw->bihw", back, torch.cat([luma, chroma], 1)) / 255).clamp(0, 1)


def blur(images, sigma):
    """Gaussian blur of pictures (B, C, H, W) by sigma (B,) pixels, at most about 2.5."""
    count, channels, height, width = images.shape
    axis = torch.arange(-4, 5, device=images.device, dtype=torch.float)
    kernel = torch.exp(-axis**2 / (2 * sigma[:, None].clamp(min=1e-2) ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    flat = F.pad(images.reshape(1, -1, height, width), (4, 4, 4, 4), mode="replicate")
    flat = F.conv2d(flat, kernel[..., None, :], groups=count * channels)
    return F.conv2d(flat, kernel[..., :, None], groups=count * channels).reshape(images.shape)


def rescale(images, small, r=None):
    """Down to `small` px and back, by bilinear or bicubic filters."""
    size = images.shape[-1]
    modes = ("bilinear", "bicubic")
    down, up = (modes[int(r.number() < 0.5)] if r else modes[1] for _ in range(2))
    less = F.interpolate(images, size=(small, small), mode=down, antialias=True)
    return F.interpolate(less.clamp(0, 1), size=(size, size), mode=up).clamp(0, 1)


def _colour_change(images, r):
    """Brightness, contrast, saturation, hue and gamma, each by a little."""
    count = len(images)
    axis = torch.full((3, 3), 1 / 3, device=images.device)
    cross = torch.tensor([[0., -1, 1], [1, 0, -1], [-1, 1, 0]], device=images.device) / math.sqrt(3)
    turn = r.normal(count, 1, 1) * 0.08
    vivid = 1 + r.uniform(count, 1, 1, low=-0.45, high=0.45)
    eye = torch.eye(3, device=images.device)
    matrix = axis + vivid * (torch.cos(turn) * (eye - axis) + torch.sin(turn) * cross)
    out = torch.einsum("bij,bjhw->bihw", matrix, images)
    contrast, bright = 1 + r.uniform(count, 1, 1, 1, low=-0.3, high=0.3), r.uniform(count, 1, 1, 1, low=-0.14, high=0.14)
    out = ((out - 0.5) * contrast + 0.5 + bright).clamp(0, 1)
    return out.clamp(min=1e-4) ** (2.0 ** r.uniform(count, 1, 1, 1, low=-0.5, high=0.5))


def _some(images, share, r, change):
    """Applies `change` to a random share of the pictures."""
    at = r.at(share, len(images))
    if len(at):
        images[at] = change(images[at]).to(images.dtype)
    return images


@torch.no_grad()
def corrupt(images, generator=None, vae=None, vae_share=0.3, strength=1.0):
    """Pictures (B, 3, S, S) in 0..1, S a multiple of 16, as a judge may get them.

    A third stay almost clean. The others go through some of: the round trip of `vae` (a callable on 0..1 pictures of
    128 px), scaling down and up, blur, sharpening, colour changes, noise, JPEG. `strength` scales every share.
    """
    r = _Random(images.device, generator)
    images, size = images.clone().float(), images.shape[-1]
    dirty = r.at(0.7, len(images))
    some = lambda x, share, change: _some(x, share * strength, r, change)  # noqa: E731

    def through_vae(x):
        small = F.interpolate(x, size=(128, 128), mode="bilinear", antialias=True).clamp(0, 1)
        return F.interpolate(vae(small).float().clamp(0, 1), size=(size, size),
                             mode="bicubic" if r.number() < 0.5 else "bilinear").clamp(0, 1)

    if vae is not None:
        images = some(images, vae_share, through_vae)
    x = images[dirty]
    if len(x):
        x = some(x, 0.22, lambda t: rescale(t, 128, r))
        x = some(x, 0.12, lambda t: rescale(t, 88 + 8 * int(r.number() * 16), r))
        x = some(x, 0.3, lambda t: blur(t, r.uniform(len(t), low=0.3, high=1.4)))
        x = some(x, 0.5, lambda t: _colour_change(t, r))
        x = some(x, 0.2, lambda t: (t + (t - blur(t, torch.ones(len(t), device=t.device)))
                                    * r.uniform(len(t), 1, 1, 1, low=0.2, high=1.2)).clamp(0, 1))
        x = some(x, 0.35, lambda t: (t + r.normal(*t.shape) * 0.06 * r.uniform(len(t), 1, 1, 1) ** 1.5).clamp(0, 1))
        x = some(x, 0.45, lambda t: jpeg(t, r.uniform(len(t), low=25, high=95)))
        images[dirty] = x
    return (images * 255).round() / 255
