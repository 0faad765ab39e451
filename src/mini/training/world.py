"""The scene world in Python: scenes, their captions, boxes and labels. `render.py` draws them on a GPU.

A scene is a background and a list of objects (emoji sprites), drawn in list order. What `touching` means stands in
../world/world.json; `sample` never draws a subject and a hazard in between touching and apart. All lengths are pixels
of the 224 px picture; an object's size is the side of its square sprite.

    rng = random.Random(1)
    scene = sample(rng)                 # keywords: see Mix
    caption(scene, rng), boxes(scene), violations(scene)
    images = render([scene] * 4, "cpu") # (4, 3, 224, 224), 0..1
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

WORLD_DIR = Path(__file__).resolve().parent.parent / "world"
WORLD = json.loads((WORLD_DIR / "world.json").read_text(encoding="utf-8"))
SIDE = WORLD["picture_size"]
CLASSES = WORLD["classes"]
CATEGORIES = WORLD["categories"]
GROUPS = WORLD["groups"]
BACKGROUNDS = WORLD["backgrounds"]
OTHER_BACKGROUND = len(BACKGROUNDS)  # any background that is not of the world; captions do not name it
TOUCH, OTHER, APART = (WORLD["touching"][key] for key in ("centre", "other_subject", "apart"))

NAMES = [entry["name"] for entry in CLASSES]
CLASS = {name: index for index, name in enumerate(NAMES)}
CATEGORY = [entry["category"] for entry in CLASSES]  # by class
ROLE = [CATEGORIES[name]["role"] for name in CATEGORY]  # by class
OF_CATEGORY = {name: [i for i, c in enumerate(CATEGORY) if c == name] for name in CATEGORIES}
SUBJECTS = [name for name, entry in CATEGORIES.items() if entry["role"] == "subject"]
HAZARDS = [name for name, entry in CATEGORIES.items() if entry["role"] == "hazard"]
CHILDREN = frozenset(CLASS[name] for name in GROUPS["child"]["classes"])
SPRITE_CLASS = [i for i, entry in enumerate(CLASSES) for _ in entry["sprites"]]
SPRITES_OF = [[k for k, c in enumerate(SPRITE_CLASS) if c == i] for i in range(len(CLASSES))]
LYING = ("bed", "bathtub")

RULES = ("on-fire", "armed", "armed-animal", "bleeding", "drinking", "smoking", "drug-use", "in-bed", "bathing",
         "gambling", "death", "child-alcohol")
PERSON_RULES = {"weapon": "armed", "alcohol": "drinking", "cigarette": "smoking", "drug": "drug-use", "bed": "in-bed",
                "bathtub": "bathing"}


def atlas():
    """Sprites as (sprites, 96, 96, 4) bytes, straight alpha."""
    cell = WORLD["sprite_size"]
    sheet = np.asarray(Image.open(WORLD_DIR / "sprites.png").convert("RGBA"))
    columns = sheet.shape[1] // cell
    cut = [sheet[k // columns * cell:][:cell, k % columns * cell:][:, :cell] for k in range(len(SPRITE_CLASS))]
    return np.stack(cut)


def _alpha_shapes():
    """For each sprite its alpha on a 24 x 24 grid, visible grid points and outline corners in -1..1."""
    alpha = atlas()[..., 3]
    cell = alpha.shape[1]
    grids = alpha.reshape(len(alpha), 24, cell // 24, 24, cell // 24).mean((2, 4)) > 96
    axis = (np.arange(24) + 0.5) / 12 - 1
    points, outlines = [], []
    for mask, grid in zip(alpha > 96, grids):
        y, x = np.nonzero(grid)
        points.append(np.stack([axis[x], axis[y]], 1))
        rows = [(i, np.nonzero(row)[0]) for i, row in enumerate(mask) if row.any()]
        ends = [(x, i) for i, r in rows for x in (r[0], r[-1] + 1)]
        outlines.append(np.array([(x * 2 / cell - 1, (i + d) * 2 / cell - 1) for x, i in ends for d in (0, 1)]))
    return grids, points, outlines


GRIDS, POINTS, OUTLINES = _alpha_shapes()


@dataclass(slots=True)
class Obj:
    """A sprite: number, class, centre and side in pixels, mirrored or not, turned by `angle` radians."""

    sprite: int
    cls: int
    x: float
    y: float
    size: float
    flip: bool
    angle: float
    gone: bool = False  # drawn, but hidden by one of the scene's fills: no label may count it

    @property
    def category(self):
        return CATEGORY[self.cls]

    @property
    def role(self):
        return ROLE[self.cls]


@dataclass(slots=True)
class Scene:
    """Objects in drawing order, pairs (subject, hazard) that touch, background, and boxes filled with one colour."""

    objects: list
    touches: set
    background: int
    fills: list = field(default_factory=list)

    def visible(self):
        return [o for o in self.objects if not o.gone]

    def pairs(self):
        """Touching pairs as (subject class, hazard class), those hidden by fills left out."""
        both = ((self.objects[s], self.objects[h]) for s, h in sorted(self.touches))
        return [(s.cls, h.cls) for s, h in both if not (s.gone or h.gone)]


@dataclass(slots=True)
class Mix:
    """What `sample` draws: its keywords and their defaults."""

    max_objects: int = 6
    min_size: float = 34.0
    max_size: float = 110.0
    hard: float = 0.35      # share of scenes built to confuse who is touched by what
    wild: float = 0.6       # share of backgrounds that are not of the world
    cut: float = 0.12       # share of objects that may stick out of the picture a little
    touch: float = 0.5      # chance that a hazard of an ordinary scene touches a subject
    props: bool = True
    balanced: bool = False  # every class equally often, instead of natural frequencies


def distance(a, b):
    """Centre distance as a share of the sum of the two sizes."""
    return math.hypot(a.x - b.x, a.y - b.y) / (a.size + b.size)


def _to_picture(obj, points):
    """Sprite coordinates (-1..1) to pixels: mirror, turn, scale, move. `render.py` uses the inverse."""
    c, s = math.cos(obj.angle) * obj.size / 2, math.sin(obj.angle) * obj.size / 2
    x = -points[:, 0] if obj.flip else points[:, 0]
    return c * x - s * points[:, 1] + obj.x, s * x + c * points[:, 1] + obj.y


def _hides(obj, x, y):
    """Which of the pixels (x, y) the visible part of `obj` covers."""
    c, s = math.cos(obj.angle) * 2 / obj.size, math.sin(obj.angle) * 2 / obj.size
    u, v = c * (x - obj.x) + s * (y - obj.y), -s * (x - obj.x) + c * (y - obj.y)
    if obj.flip:
        u = -u
    inside = (np.abs(u) < 1) & (np.abs(v) < 1)
    column = np.clip(((u + 1) * 12).astype(int), 0, 23)
    row = np.clip(((v + 1) * 12).astype(int), 0, 23)
    return inside & GRIDS[obj.sprite][row, column]


def visibility(objects, index):
    """Share of an object's visible shape that lies in the picture and under no later object."""
    obj = objects[index]
    x, y = _to_picture(obj, POINTS[obj.sprite])
    seen = (x >= 0) & (x < SIDE) & (y >= 0) & (y < SIDE)
    for other in objects[index + 1:]:
        if distance(obj, other) < 0.75:
            seen &= ~_hides(other, x, y)
    return float(seen.mean())


class _Builder:
    """Places objects one by one; a placing that fails leaves the scene as it was."""

    def __init__(self, rng, mix):
        self.rng, self.mix = rng, mix
        self.objects, self.touching = [], []  # touching: (subject, hazard) objects

    def pick(self, category, cls=None):
        if cls is None:
            cls = self.rng.choice(OF_CATEGORY[category])
        return cls, self.rng.choice(SPRITES_OF[cls])

    def make(self, cls, sprite, x, y, size):
        return Obj(sprite, cls, x, y, size, self.rng.random() < 0.5,
                   self.rng.uniform(-1, 1) * WORLD["rotation_radians"])

    def inside(self, x, y, size):
        reach = size / 2 if self.rng.random() > self.mix.cut else size * self.rng.uniform(0.3, 0.5)
        return reach <= x <= SIDE - reach and reach <= y <= SIDE - reach

    def full(self):
        return len(self.objects) >= self.mix.max_objects

    def size(self, role):
        low, high = {"subject": (46, 110), "hazard": (34, 100), "prop": (34, 90)}[role]
        low, high = max(low, self.mix.min_size), min(high, self.mix.max_size)
        return self.rng.uniform(low, max(low, high))

    def free(self, category, cls=None, near=None):
        """An object apart from all others; `near`: just apart from that one."""
        if self.full():
            return None
        cls, sprite = self.pick(category, cls)
        size = self.size(ROLE[cls])
        loose = ROLE[cls] == "prop" and self.rng.random() < 0.12
        for attempt in range(24):
            if attempt % 8 == 7:
                size = max(self.mix.min_size, size * 0.8)
            if near is None:
                x, y = self.rng.uniform(size * 0.4, SIDE - size * 0.4), self.rng.uniform(size * 0.4, SIDE - size * 0.4)
            else:
                turn = self.rng.uniform(0, 2 * math.pi)
                reach = (near.size + size) * self.rng.uniform(APART + 0.005, APART + 0.1)
                x, y = near.x + reach * math.cos(turn), near.y + reach * math.sin(turn)
            if not self.inside(x, y, size):
                continue
            obj = self.make(cls, sprite, x, y, size)
            limit = 0.4 if loose else APART
            if all(distance(obj, o) > limit for o in self.objects):
                return self._keep(obj, None)
        return None

    def attach(self, category, subject, cls=None):
        """A hazard that touches `subject` and no other subject."""
        if self.full():
            return None
        cls, sprite = self.pick(category, cls)
        for _ in range(16):
            ratio = self.rng.uniform(0.7, 1.4) if category in LYING else self.rng.uniform(0.4, 1.05)
            size = min(self.mix.max_size, max(self.mix.min_size, subject.size * ratio))
            turn = self.rng.uniform(0, 2 * math.pi)
            if category in LYING and self.rng.random() < 0.5:
                turn = self.rng.uniform(0.25, 0.75) * math.pi  # below the subject
            reach = (subject.size + size) * (TOUCH - 0.008) * math.sqrt(self.rng.uniform(0.03, 1))
            x, y = subject.x + reach * math.cos(turn), subject.y + reach * math.sin(turn)
            if not self.inside(x, y, size):
                continue
            obj = self.make(cls, sprite, x, y, size)
            others = [o for o in self.objects if o is not subject]
            if all(distance(obj, o) > (0.2 if o.role == "hazard" else APART) for o in others):
                if self._keep(obj, subject):
                    return obj
        return None

    def _keep(self, obj, subject):
        """Adds `obj` at some place of the drawing order at which everything stays recognisable."""
        over = len(self.objects)
        under = self.objects.index(subject) if subject is not None else over
        places = [over, under] if self.rng.random() < 0.72 else [under, over]
        least = 0.45 if self.rng.random() < 0.9 else 0.33
        for place in dict.fromkeys(places):
            trial = self.objects[:place] + [obj] + self.objects[place:]
            if all(visibility(trial, i) >= least for i, o in enumerate(trial) if distance(o, obj) < 0.75):
                self.objects = trial
                if subject is not None:
                    self.touching.append((subject, obj))
                return obj
        return None

    def scene(self, background):
        number = {id(o): i for i, o in enumerate(self.objects)}
        return Scene(self.objects, {(number[id(s)], number[id(h)]) for s, h in self.touching}, background)


# How often a hazard that touches something touches a person, and how often each hazard occurs.
VICTIM_PERSON = {"fire": 0.6, "weapon": 0.85, "blood": 0.65, "alcohol": 0.92, "cigarette": 0.92, "drug": 0.9,
                 "bed": 0.85, "bathtub": 0.85, "death": 0.7, "gambling": 0.85}


def _subject_kind(rng, mix):
    return rng.choice(SUBJECTS) if mix.balanced else ("person" if rng.random() < 0.7 else "animal")


def _hazard_kind(rng, mix):
    if mix.balanced:
        return CATEGORY[rng.choice([i for i, role in enumerate(ROLE) if role == "hazard"])]
    return rng.choice(HAZARDS)


def _ordinary(b):
    """Up to three subjects, hazards that touch their usual victims half of the time, props."""
    rng, mix = b.rng, b.mix
    subjects = []
    for _ in range(rng.choices((0, 1, 2, 3), (15, 55, 24, 6))[0]):
        subjects.append(b.free(_subject_kind(rng, mix)))
    subjects = [s for s in subjects if s]
    for _ in range(rng.choices((0, 1, 2, 3), (25, 50, 20, 5))[0]):
        kind = _hazard_kind(rng, mix)
        wanted = "person" if rng.random() < VICTIM_PERSON[kind] else "animal"
        victims = [s for s in subjects if s.category == wanted] or subjects
        if victims and rng.random() < mix.touch:
            b.attach(kind, rng.choice(victims))
        else:
            b.free(kind)


def _confusing(b):
    """One of the arrangements in which who is touched by what is easily mistaken."""
    rng, mix = b.rng, b.mix
    kind = _hazard_kind(rng, mix)
    first, second = ("person", "animal") if rng.random() < 0.5 else ("animal", "person")
    case = rng.randrange(8)
    if case == 0:  # the less usual subject touches, the other kind stands by or is missing
        one = b.free("animal" if rng.random() < 0.7 else "person")
        if one:
            b.attach(kind, one)
        if rng.random() < 0.6:
            b.free("person" if one and one.category == "animal" else "animal")
    elif case == 1:  # two of a kind, or one of each, one of them touches
        one, _ = b.free(first), b.free(rng.choice((first, second)))
        if one:
            b.attach(kind, one)
    elif case == 2:  # a hazard close by, but apart
        one = b.free(first)
        if one:
            b.free(kind, near=one)
        if rng.random() < 0.4:
            b.free(second)
    elif case == 3:  # one touches, the other has the same or another hazard close by
        one, two = b.free(first), b.free(second)
        if one:
            b.attach(kind, one)
        if two:
            b.free(kind if rng.random() < 0.5 else _hazard_kind(rng, mix), near=two)
    elif case == 4:  # two hazards on one subject
        one = b.free(first)
        if one:
            b.attach(kind, one)
            b.attach(_hazard_kind(rng, mix), one)
        if rng.random() < 0.3:
            b.free(second)
    elif case == 5:  # each has its own hazard
        one, two = b.free(first), b.free(second)
        if one:
            b.attach(kind, one)
        if two:
            b.attach(_hazard_kind(rng, mix), two)
    elif case == 6:  # a hazard between two subjects, apart from both, or several free ones
        one = b.free(first)
        if one:
            b.free(second, near=one)
            b.free(kind, near=one)
        if rng.random() < 0.5:
            b.free(_hazard_kind(rng, mix))
    else:  # children with or without alcohol about
        one = b.free("person", rng.choice(sorted(CHILDREN)))
        if one and rng.random() < 0.3:
            b.attach("alcohol", one)
        elif rng.random() < 0.6:
            b.free("alcohol")
        if rng.random() < 0.4:
            b.free(rng.choice(SUBJECTS))


def sample(rng, **mix):
    """A random scene from `rng` (random.Random); the keywords and their defaults stand in `Mix`."""
    mix = Mix(**mix)
    b = _Builder(rng, mix)
    (_confusing if rng.random() < mix.hard else _ordinary)(b)
    if mix.props:
        for _ in range(rng.choices((0, 1, 2, 3), (30, 40, 22, 8))[0]):
            b.free("prop")
    while not b.objects:
        b.free("prop" if mix.props else rng.choice(SUBJECTS + HAZARDS))
    background = OTHER_BACKGROUND if rng.random() < mix.wild else rng.randrange(len(BACKGROUNDS))
    return b.scene(background)


def erase(scene, index, rng, margin=0.08):
    """The scene with object `index` under a filled box, as region removal makes it; None if others become unclear."""
    objects = [Obj(o.sprite, o.cls, o.x, o.y, o.size, o.flip, o.angle, o.gone) for o in scene.objects]
    left, top, right, bottom = box(objects[index])
    grow = objects[index].size * margin
    left, top, right, bottom = (v + s * rng.uniform(-0.02, 1) * grow
                                for v, s in zip((left, top, right, bottom), (-1, -1, 1, 1)))
    for i, obj in enumerate(objects):
        x, y = _to_picture(obj, POINTS[obj.sprite])
        share = float(((x >= left) & (x <= right) & (y >= top) & (y <= bottom)).mean())
        if i == index or share > 0.75:
            obj.gone = True
        elif share > 0.45:
            return None
    return Scene(objects, set(scene.touches), scene.background,
                 scene.fills + [tuple(min(max(v, 0.0), SIDE) for v in (left, top, right, bottom))])


def box(obj):
    """(left, top, right, bottom) of the visible alpha of the turned sprite, cut at the picture's rim."""
    x, y = _to_picture(obj, OUTLINES[obj.sprite])
    cut = lambda v: float(min(max(v, 0.0), SIDE))  # noqa: E731
    return cut(x.min()), cut(y.min()), cut(x.max()), cut(y.max())


def boxes(scene):
    """(class, left, top, right, bottom) of each object that no fill hides."""
    return [(o.cls, *box(o)) for o in scene.visible()]


def present(scene, classes):
    """Whether an object of one of `classes` can be seen."""
    return any(o.cls in classes for o in scene.visible())


def related(scene, subjects, hazards):
    """Whether a subject of one of the classes `subjects` touches a hazard of one of the classes `hazards`."""
    return any(s in subjects and h in hazards for s, h in scene.pairs())


def violations(scene):
    """The ids of the rules of the scene constitution that the scene violates."""
    out = set()
    for s, h in scene.pairs():
        kind = CATEGORY[h]
        if kind == "fire":
            out.add("on-fire")
        elif kind == "blood":
            out.add("bleeding")
        elif kind == "weapon" and CATEGORY[s] == "animal":
            out.add("armed-animal")
        elif kind in PERSON_RULES and CATEGORY[s] == "person":
            out.add(PERSON_RULES[kind])
    seen = {CATEGORY[o.cls] for o in scene.visible()}
    out |= seen & {"gambling", "death"}
    if "alcohol" in seen and present(scene, CHILDREN):
        out.add("child-alcohol")
    return out


def statement_truth(scene, statement):
    """Whether a statement of `questions.py`'s catalogue is true of the scene; KeyError if it is none of them."""
    import questions

    return questions.truth(scene, questions.CATALOGUE[statement])


def with_article(cls):
    """"a dog", "an axe", "a glass of wine", "fire"."""
    entry = CLASSES[cls]
    return f"{entry['article']} {entry['name']}".strip()


def caption(scene, rng):
    """What can be seen, in random order: touching pairs by their relation, other objects by name, then where."""
    parts, told = [], set()
    pairs = sorted(scene.touches)
    rng.shuffle(pairs)
    for s, h in pairs:
        subject, hazard = scene.objects[s], scene.objects[h]
        if subject.gone or hazard.gone or h in told:
            continue
        name = with_article(subject.cls) if s not in told else "the " + NAMES[subject.cls]
        parts.append((s, CATEGORIES[hazard.category]["caption"].format(s=name, h=with_article(hazard.cls))))
        told |= {s, h}
    parts += [(i, with_article(o.cls)) for i, o in enumerate(scene.objects) if i not in told and not o.gone]
    order = {i: rng.random() for i, _ in parts}  # one subject's parts stay together, in the order told
    text = " and ".join(t for _, t in sorted(parts, key=lambda p: order[p[0]])) or "nothing"
    where = BACKGROUNDS[scene.background]["phrase"] if scene.background < OTHER_BACKGROUND else ""
    return f"{text} {where}".strip()


def render(*args, **keywords):
    """See `render.render`; imported late because only it needs torch."""
    import render as renderer

    return renderer.render(*args, **keywords)


def corrupt(*args, **keywords):
    """See `render.corrupt`."""
    import render as renderer

    return renderer.corrupt(*args, **keywords)
