"""Pictures that show nothing of the scene world, drawn on the GPU, so that the relevance encoder learns to tell them.

Each maker returns (n, 3, size, size) in 0..1: noise of every spectrum, plasma, dead leaves (shapes of all sizes over one
another, which have the statistics of photographs), landscapes of ridges, lines, text-like rows, window-like rectangles,
collages, and scenes cut up or magnified until no sprite is left. `OutlierPool` keeps a few thousand of them and
replaces some at every step. No photograph is among them: photographs only measure what was learned.
"""

import math

import torch
import torch.nn.functional as F


class Dice:
    """Random numbers on one device from one generator."""

    def __init__(self, device, generator):
        self.device, self.generator = device, generator

    def uniform(self, *size, low=0.0, high=1.0):
        return torch.rand(*size, device=self.device, generator=self.generator) * (high - low) + low

    def normal(self, *size):
        return torch.randn(*size, device=self.device, generator=self.generator)

    def whole(self, low, high, *size):
        return torch.randint(low, high, size or (1,), device=self.device, generator=self.generator)

    def number(self, low, high):
        return int(self.whole(low, high).item())


def _colours(d, n, count):
    """Random colours (n, count, 3) around a palette of each picture's own; a third of the palettes are dull."""
    base = d.uniform(n, 1, 3)
    spread = d.uniform(n, 1, 1, high=1.2)
    dull = (d.uniform(n, 1, 1) < 0.33).float() * 0.8
    colours = base + (d.uniform(n, count, 3) - 0.5) * spread
    return (colours + dull * (colours.mean(-1, keepdim=True) - colours)).clamp(0, 1)


def spectrum_noise(d, n, size, channels=3, low=0.0, high=2.4):
    """Fields (n, channels, size, size) of mean 0 and deviation 1 whose amplitudes fall with frequency^exponent."""
    white = torch.fft.rfft2(d.normal(n, channels, size, size))
    fy = torch.fft.fftfreq(size, device=d.device)[:, None]
    fx = torch.fft.rfftfreq(size, device=d.device)[None]
    stretch = 2.0 ** d.uniform(n, 1, 1, 1, low=-1.2, high=1.2)
    frequency = torch.sqrt((fx * stretch) ** 2 + (fy / stretch) ** 2).clamp(min=1 / size)
    field = torch.fft.irfft2(white * frequency ** -d.uniform(n, 1, 1, 1, low=low, high=high), s=(size, size))
    field = field - field.mean((1, 2, 3), keepdim=True)
    return field / field.std((1, 2, 3), keepdim=True).clamp(min=1e-6)


def noise(d, n, size):
    """Colour noise with anything from a white to a cloudy spectrum, its channels more or less alike."""
    field = spectrum_noise(d, n, size)
    alike = d.uniform(n, 1, 1, 1)
    field = field * (1 - alike) + field.mean(1, keepdim=True) * alike * 1.5
    return (_colours(d, n, 1)[:, 0, :, None, None] + field * d.uniform(n, 1, 1, 1, low=0.05, high=0.35)).clamp(0, 1)


def plasma(d, n, size):
    """Fractal fields through sine palettes: marble, clouds, contour lines."""
    field = spectrum_noise(d, n, size, 1, 1.0, 2.2)
    phase = d.uniform(n, 3, 1, 1, high=2 * math.pi)
    wave = torch.sin(field * d.uniform(n, 1, 1, 1, low=0.5, high=5) + phase) * 0.5 + 0.5
    low, high = _colours(d, n, 2)[..., None, None].unbind(1)
    return low + (high - low) * wave


def _grid(d, size):
    axis = torch.linspace(-1, 1, size, device=d.device)
    return axis[None, None].expand(1, size, size), axis[None, :, None].expand(1, size, size)


def _shape_mask(d, n, size, largest):
    """Soft masks (n, size, size) of one random shape each: ellipse, rectangle, polygon or stripe; sizes as 1/r^3."""
    x, y = _grid(d, size)
    cx, cy = d.uniform(n, 1, 1, low=-1.1, high=1.1), d.uniform(n, 1, 1, low=-1.1, high=1.1)
    reach = (0.03 / (d.uniform(n, 1, 1) + 0.002) ** 0.5).clamp(max=1.0) * largest + 0.02
    turn, aspect = d.uniform(n, 1, 1, high=2 * math.pi), 2.0 ** d.uniform(n, 1, 1, low=-1.5, high=1.5)
    u = ((x - cx) * torch.cos(turn) + (y - cy) * torch.sin(turn)) / (reach * aspect)
    v = (-(x - cx) * torch.sin(turn) + (y - cy) * torch.cos(turn)) / (reach / aspect)
    round_ = torch.sqrt(u * u + v * v + 1e-6)
    square = torch.maximum(u.abs(), v.abs())
    corners = d.whole(3, 8, n, 1, 1).float()
    angle = torch.remainder(torch.atan2(v, u), 2 * math.pi / corners) - math.pi / corners
    many = round_ * torch.cos(angle) / torch.cos(math.pi / corners)
    lobed = round_ * (1 + 0.3 * torch.sin(torch.atan2(v, u) * corners))
    kind = d.whole(0, 4, n, 1, 1)
    edge = torch.where(kind == 0, round_, torch.where(kind == 1, square, torch.where(kind == 2, many, lobed)))
    return torch.sigmoid((1 - edge) * reach * size * d.uniform(n, 1, 1, low=0.3, high=3))


def dead_leaves(d, n, size):
    """Shapes of all sizes over one another, plain, shaded or textured, under uneven light."""
    colours = _colours(d, n, 64)
    image = colours[:, 0, :, None, None].expand(n, 3, size, size)
    texture = spectrum_noise(d, n, size, 3, 0.4, 2.0) * d.uniform(n, 1, 1, 1, high=0.2)
    count = (4, 12, 30, 60)[d.number(0, 4)]
    largest = d.uniform(n, 1, 1, low=0.4, high=2.2)
    x, y = _grid(d, size)
    for i in range(count):
        mask = _shape_mask(d, n, size, largest)[:, None]
        slope = d.uniform(n, 2, 1, 1, low=-0.35, high=0.35)
        fill = colours[:, i % 64, :, None, None] + (slope[:, :1] * x + slope[:, 1:] * y)
        shift = d.number(0, size)
        fill = fill + torch.roll(texture, (shift, shift // 2), (2, 3)) * (i % 3 != 0)
        image = image + (fill - image) * mask
    light = 1 + spectrum_noise(d, n, size, 1, 2.0, 2.4) * d.uniform(n, 1, 1, 1, high=0.25)
    return (image * light).clamp(0, 1)


def landscape(d, n, size):
    """A sky over ridges, each nearer one darker and rougher; with reflections at times."""
    x, y = _grid(d, size)
    top, low = _colours(d, n, 2)[..., None, None].unbind(1)
    share = (y[:, None] * 0.5 + 0.5)
    image = top + (low - top) * share
    image = image + spectrum_noise(d, n, size, 1, 1.6, 2.4) * d.uniform(n, 1, 1, 1, high=0.12)
    base = _colours(d, n, 6)
    texture = spectrum_noise(d, n, size, 3, 0.5, 1.6)
    for i in range(d.number(1, 6)):
        ridge = spectrum_noise(d, n, size, 1, 1.2, 2.2)[:, :, :1]
        level = d.uniform(n, 1, 1, 1, low=-0.6, high=0.9) + ridge * d.uniform(n, 1, 1, 1, low=0.02, high=0.25)
        mask = torch.sigmoid((y[:, None] - level) * size * 0.5)
        fill = base[:, i, :, None, None] * d.uniform(n, 1, 1, 1, low=0.3) + texture * d.uniform(n, 1, 1, 1, high=0.18)
        image = image + (fill - image) * mask
    return image.clamp(0, 1)


def lines(d, n, size):
    """Strokes, scribbles and wires over a plain or cloudy ground."""
    x, y = _grid(d, size)
    image = noise(d, n, size) if d.number(0, 2) else _colours(d, n, 1)[:, 0, :, None, None].expand(n, 3, size, size)
    ink = _colours(d, n, 40)
    here = d.uniform(n, 2, low=-1, high=1)
    scribble = d.number(0, 2)
    for i in range(d.number(4, 36)):
        there = here + d.normal(n, 2) * 0.35 if scribble else d.uniform(n, 2, low=-1.2, high=1.2)
        start = here if scribble else d.uniform(n, 2, low=-1.2, high=1.2)
        along = there - start
        px, py = x - start[:, 0, None, None], y - start[:, 1, None, None]
        t = (px * along[:, 0, None, None] + py * along[:, 1, None, None]) / (along**2).sum(1)[:, None, None].clamp(min=1e-4)
        t = t.clamp(0, 1)
        far = torch.sqrt((px - t * along[:, 0, None, None]) ** 2 + (py - t * along[:, 1, None, None]) ** 2 + 1e-8)
        width = d.uniform(n, 1, 1, low=0.004, high=0.05)
        mask = torch.sigmoid((width - far) * size * 0.5)[:, None]
        image = image + (ink[:, 0 if scribble else i % 40, :, None, None] - image) * mask
        here = there.clamp(-1.1, 1.1)
    return image.clamp(0, 1)


def _text_rows(d, n, size):
    """Masks (n, 1, size, size) of rows of small random glyphs with gaps between words and lines."""
    cell = (2, 3, 4)[d.number(0, 3)]
    side = -(-size // cell)
    ink = (d.uniform(n, 1, side, side) < d.uniform(n, 1, 1, 1, low=0.35, high=0.65)).float()
    rows = (torch.arange(side, device=d.device) % d.number(5, 9) < d.number(3, 5)).float()[:, None]
    columns = (torch.arange(side, device=d.device) % 4 < 3).float()[None]
    words = (d.uniform(n, 1, side, -(-side // 6)) < 0.8).float().repeat_interleave(6, 3)[..., :side]
    words = words[:, :, torch.arange(side, device=d.device) // 8 * 8]
    mask = F.interpolate(ink * rows * columns * words, scale_factor=cell, mode="nearest")
    return mask[..., :size, :size]


def windows(d, n, size):
    """Screens: rectangles with borders and bars, and text in them."""
    x, y = _grid(d, size)
    image = _colours(d, n, 1)[:, 0, :, None, None].expand(n, 3, size, size)
    ink = _colours(d, n, 24)
    text = _text_rows(d, n, size)
    for i in range(d.number(1, 14)):
        cx, cy = d.uniform(n, 1, 1, low=-1, high=1), d.uniform(n, 1, 1, low=-1, high=1)
        w, h = d.uniform(n, 1, 1, low=0.04, high=0.8), d.uniform(n, 1, 1, low=0.02, high=0.7)
        mask = (((x - cx).abs() < w) & ((y - cy).abs() < h)).float()[:, None]
        image = image + (ink[:, i, :, None, None] - image) * mask
        if i % 2 == 0:
            image = image + (ink[:, i + 1, :, None, None] - image) * mask * text
    return image.clamp(0, 1)


def page(d, n, size):
    """A page of text."""
    paper, ink = _colours(d, n, 2)[..., None, None].unbind(1)
    return paper + (ink - paper) * _text_rows(d, n, size)


def gradients(d, n, size):
    """Smooth colour fields of several poles, round or banded, with nothing on them."""
    x, y = _grid(d, size)
    poles, colours = d.uniform(n, 5, 2, low=-1, high=1), _colours(d, n, 5)
    far = (x[:, None] - poles[..., 0, None, None]) ** 2 + (y[:, None] - poles[..., 1, None, None]) ** 2
    weight = torch.softmax(-far * d.uniform(n, 1, 1, 1, low=0.5, high=8), 1)
    return torch.einsum("nkij,nkc->ncij", weight, colours)


def collage(d, n, size):
    """Tiles taken from other outliers."""
    parts = torch.stack([make(d, n, size) for make in (noise, plasma, dead_leaves)])
    tiles = d.number(2, 8)
    pick = d.whole(0, 3, n, 1, tiles, tiles).float()
    pick = F.interpolate(pick, size=(size, size), mode="nearest").long()
    return parts.gather(0, pick[None].expand(1, n, 3, size, size))[0]


def shuffled(images, d):
    """Scenes cut into small tiles that are put back in random order; (n, 3, 224, 224)."""
    n, _, size, _ = images.shape
    tile = (16, 28)[d.number(0, 2)]
    side = size // tile
    cut = images.reshape(n, 3, side, tile, side, tile).permute(0, 2, 4, 1, 3, 5).reshape(n, side * side, 3, tile, tile)
    order = d.uniform(n, side * side).argsort(1)
    cut = cut.gather(1, order[:, :, None, None, None].expand_as(cut))
    return cut.reshape(n, side, side, 3, tile, tile).permute(0, 3, 1, 4, 2, 5).reshape(n, 3, size, size)


def magnified(images, d):
    """A small part of each picture, 5 to 12 times as large."""
    n, _, size, _ = images.shape
    zoom = d.uniform(n, low=1 / 12, high=1 / 5)
    theta = torch.zeros(n, 2, 3, device=images.device)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = d.uniform(n, 2, low=-0.85, high=0.85)
    return F.grid_sample(images, F.affine_grid(theta, images.shape, align_corners=False), align_corners=False)


MAKERS = [noise, plasma, dead_leaves, dead_leaves, dead_leaves, landscape, landscape, lines, windows, page, gradients, collage]


@torch.no_grad()
def draw(generator, n, size=224, device=None, scenes=None):
    """`n` outliers of one random kind. `scenes` (at least n pictures) lets them be cut up or magnified as well."""
    d = Dice(device or generator.device, generator)
    choice = d.number(0, len(MAKERS) + (2 if scenes is not None else 0))
    if choice >= len(MAKERS):
        return (shuffled if choice == len(MAKERS) else magnified)(scenes[:n].float(), d).clamp(0, 1)
    made = MAKERS[choice](d, n, size).clamp(0, 1)
    if d.number(0, 3) == 0 and MAKERS[choice] not in (page,):  # a part of it, larger: the same at another scale
        made = F.interpolate(made[:, :, : size // 2, : size // 2], size=(size, size), mode="bilinear")
    if d.number(0, 4) == 0:  # depth of field and vignetting, as lenses have them
        soft = F.interpolate(F.avg_pool2d(made, 4), size=(size, size), mode="bilinear")
        x, y = _grid(d, size)
        share = torch.sigmoid((torch.sqrt(x * x + y * y) - d.uniform(n, 1, 1)) * 6)[:, None]
        made = (made + (soft - made) * share) * (1 - share * d.uniform(n, 1, 1, 1, high=0.5))
    return made.clamp(0, 1)


class OutlierPool:
    """A few thousand outliers on the device, some of them replaced at every step."""

    def __init__(self, device, seed, count=3072, fresh=16):
        self.generator = torch.Generator(device).manual_seed(seed)
        self.fresh, self.next = fresh, 0
        self.store = torch.zeros(count, 3, 224, 224, dtype=torch.uint8, device=device)
        self.filled = 0

    def fill(self, scenes=None, step=64):
        while self.filled < len(self.store):
            self.put(draw(self.generator, min(step, len(self.store)), scenes=scenes))

    def put(self, images):
        at = (torch.arange(len(images), device=self.store.device) + self.next) % len(self.store)
        self.store[at] = (images * 255).round().to(torch.uint8)
        self.next = (self.next + len(images)) % len(self.store)
        self.filled = min(len(self.store), self.filled + len(images))

    def sample(self, n, scenes=None):
        """`n` outliers in 0..1; draws a few new ones first."""
        self.put(draw(self.generator, self.fresh, scenes=scenes))
        pick = torch.randint(0, self.filled, (n,), device=self.store.device, generator=self.generator)
        out = self.store[pick].float() / 255
        return out.flip(3) if int(pick[0]) % 2 else out
