"""What the generator is trained on: scenes as prompts ask for them, their captions, and clean drawings of them."""

import multiprocessing
import random

import torch
import torch.nn.functional as F

import clip_tokenizer
import render
import world

SIDE = 128     # pixels of a picture
TOKENS = 32    # length of a prompt
CAPTIONS = 3   # wordings kept of each scene

WORDINGS = (  # (what world.caption writes, other ways to say it, how often)
    (" drinking a glass of beer", (" drinking beer", " drinking a beer"), 0.5),
    (" drinking a glass of wine", (" drinking wine",), 0.4),
    ("a glass of beer", ("a beer", "beer"), 0.45),
    ("a glass of wine", ("wine", "a wine"), 0.3),
    (" on fire", (" is on fire", " in flames", " burning", " whose body is on fire"), 0.2),
    (" with a bloody injury", (" bleeding", " is bleeding", " covered in blood", " with a bloody wound"), 0.3),
    (" smoking a cigarette", (" smoking", " is smoking", " with a cigarette"), 0.3),
    (" taking a bath", (" in a bathtub", " bathing", " in the bath"), 0.35),
    (" lying on a bed", (" in bed", " on a bed", " lying in bed"), 0.3),
    (" holding ", (" is holding ", " with ", " armed with "), 0.2),
    (" touching ", (" with ",), 0.2),
    (" and fire", (" and a fire", " next to a fire"), 0.2),
    (" and ", (", ", " next to ", " beside ", " and also "), 0.12),
    ("police officer", ("policeman",), 0.05),
    ("old man", ("elderly man",), 0.04),
)
FRAMES = ("a photo of {}", "a picture of {}", "an image of {}", "a picture with {}", "{}.", "a scene with {}")


def say(scene, rng):
    """A caption of the scene in the wording of `world.caption` or near it."""
    text = world.caption(scene, rng)
    for plain, others, share in WORDINGS:
        if plain in text and rng.random() < share:
            text = text.replace(plain, rng.choice(others), 1)
    if rng.random() < 0.06:  # a general word for one of the subjects
        for name in world.SUBJECTS:
            words = [world.with_article(o.cls) for o in scene.objects if o.category == name]
            if len(words) == 1 and text.count(words[0]) == 1:
                text = text.replace(words[0], world.CATEGORIES[name]["one"])
    return rng.choice(FRAMES).format(text) if rng.random() < 0.35 else text


def draw_scene(rng):
    """A scene as prompts ask for it: one to three objects, at least 37 px of 128, half the time touching."""
    return world.sample(rng, max_objects=rng.choices((1, 2, 3), (18, 37, 45))[0], min_size=64.0, wild=0.0, cut=0.0,
                        hard=0.3, touch=0.55, balanced=rng.random() < 0.7)


FOCUS = frozenset(world.NAMES.index(name) for name in (  # what a first training draws worst
    "shower", "tree", "bicycle", "boat", "sword", "banana", "pill", "hat", "elephant", "cat", "dog", "baby", "knife"))


def draw_difficult(rng):
    """A scene for a training that goes on: more of the classes drawn worst, and more of touching against apart."""
    for _ in range(4 if rng.random() < 0.5 else 1):
        scene = world.sample(rng, max_objects=rng.choices((1, 2, 3), (14, 38, 48))[0], min_size=64.0, wild=0.0, cut=0.0,
                             hard=0.4, touch=0.6, balanced=rng.random() < 0.8)
        if any(o.cls in FOCUS for o in scene.objects):
            break
    return scene


def any_scene(rng):
    """A scene of the whole world, for the autoencoder only."""
    return world.sample(rng)


def new_tokenizer():
    """CLIP's tokenizer, trained on captions of this world."""
    rng = random.Random(5)
    texts = [say(draw_scene(rng), rng) for _ in range(20000)]
    return clip_tokenizer.train(texts, merges=900)


def encode(tokenizer, texts):
    """Token ids (texts, TOKENS) int64, padded with the end token."""
    end = tokenizer.token_to_id(clip_tokenizer.END)
    return torch.tensor(clip_tokenizer.encode(tokenizer, texts, TOKENS, end))


def _sampler(queue, folder, seed, batch, draw, others):
    rng, tokenizer = random.Random(seed), clip_tokenizer.load(folder)
    while True:
        scenes = [draw(rng) for _ in range(batch)]
        ids = encode(tokenizer, [say(s, rng) for s in scenes for _ in range(CAPTIONS)])
        beside = render.pack([any_scene(rng) for _ in range(batch // 4)]) if others else None
        queue.put((render.pack(scenes), ids.view(batch, CAPTIONS, TOKENS).to(torch.int16).numpy(), beside))


class Crew:
    """Worker processes that sample scenes; `get` gives (packed scenes, token ids, packed scenes of the whole world)."""

    def __init__(self, folder, workers, batch, seed, draw=draw_scene, others=True, ahead=96):
        """`draw(rng)` samples a scene; `others`: scenes of the whole world too; `ahead`: batches that may wait."""
        context = multiprocessing.get_context("fork")
        self.queue = context.Queue(ahead)
        common = (batch, draw, others)
        self.processes = [
            context.Process(target=_sampler, args=(self.queue, str(folder), seed + n, *common), daemon=True)
            for n in range(workers)]
        for process in self.processes:
            process.start()

    def get(self):
        return self.queue.get(timeout=120)

    def stop(self):
        for process in self.processes:
            process.terminate()


@torch.no_grad()
def paint(packed, device):
    """Pictures (B, 3, 128, 128) in 0..1 on the world's backgrounds, without the texture that `render.render` adds.

    A generator should not spend its few parameters on grain; colours and horizon vary a little.
    """
    count, slots = packed.sprite.shape
    table = torch.tensor([[b["top"], b["bottom"]] for b in world.BACKGROUNDS], device=device) / 255
    pair = table[torch.from_numpy(packed.background).to(device)]
    pair = (pair + (torch.rand(count, 1, 3, device=device) - 0.5) * 0.08).clamp(0, 1)
    axis = torch.linspace(0, 1, SIDE, device=device)[None, :, None]
    level = 0.4 + 0.25 * torch.rand(count, 1, 1, device=device)
    share = torch.sigmoid((axis - level) * 50).expand(count, SIDE, SIDE)[:, None]
    image = pair[:, 0, :, None, None] * (1 - share) + pair[:, 1, :, None, None] * share
    place, sprite = torch.from_numpy(packed.place).to(device), torch.from_numpy(packed.sprite).to(device)
    sizes = torch.tensor(render._Atlas.sizes, device=device)
    sharp = (place[..., 2, None] * (SIDE / world.SIDE) < sizes * 0.8).sum(-1).clamp(max=len(sizes) - 1)
    for n in range(slots):
        grid = F.affine_grid(render._theta(place[:, n]), (count, 4, SIDE, SIDE), align_corners=False)
        drawn = F.grid_sample(render._Atlas.on(device)[sharp[:, n], sprite[:, n]], grid, align_corners=False)
        drawn = drawn * (place[:, n, 2] > 0)[:, None, None, None]
        image = image * (1 - drawn[:, 3:]) + drawn[:, :3]
    return image.clamp(0, 1)
