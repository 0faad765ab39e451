"""Trains the embedded detector, an OWLv2 model of 5 M parameters, on scenes drawn as it trains.

    python detector.py --seconds 400 --out OUT --device cuda:0 --workers 5 [--vae SUITE/generator/vae] [--resume OUT]
                       [--tokenizer RELEVANCE_FOLDER]

Writes OUT/detector (an OWLv2 folder in Hugging Face layout, bf16) and OUT/metrics.json.

Patch tokens near the middle of an object answer for it: they are taught its words (class, category, group, synonyms)
against all other words by binary cross-entropy, so that a score is the probability that the word is there, and its box
by L1 and generalised IoU. Words that are in no scene at all are taught as absent. The objectness head learns which
tokens answer for anything. Architecture, heads and post-processing are those of transformers 5.17 unchanged.
"""

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import clip_tokenizer
import render
import scene_batches as sb
import scene_text as st
import world
from round_trip import Vae

LENGTH = 16  # query positions, as in the published OWLv2 checkpoints
PAD = 0      # '!', with which OWLv2's processor pads queries
SIDE, PATCH = 224, 14
FOUND = 0.05  # confidence from which CLUE believes a box (section 3.4)

# Things that no scene holds: the first are taught as absent, the others only measured.
ABSENT = """airplane bus truck train motorcycle bridge tower castle mountain river tent computer keyboard television
window door table bottle plate fork spoon pizza bread cheese carrot orange grape strawberry egg glove shirt dress sock
bag suitcase scissors ladder rope wheel drum piano violin kite rocket robot ghost dragon crown ring diamond flag map
newspaper letter envelope stamp coin money bear lion tiger monkey snake frog spider bee butterfly whale dolphin shark
penguin giraffe zebra camel sheep goat duck owl""".split()
ABSENT_UNSEEN = "helicopter tractor volcano lighthouse microscope umpire kangaroo octopus sandwich helmet mirror trumpet".split()


def build(vocabulary, end):
    """An Owlv2ForObjectDetection from scratch: ViT 192 x 8 with 14 px patches at 224 px, text 128 x 4."""
    from transformers import Owlv2Config, Owlv2ForObjectDetection

    text = {"vocab_size": vocabulary, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4,
            "num_attention_heads": 4, "max_position_embeddings": LENGTH,
            "pad_token_id": PAD, "bos_token_id": end - 1, "eos_token_id": end}
    vision = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 8, "num_attention_heads": 6,
              "image_size": SIDE, "patch_size": PATCH}
    model = Owlv2ForObjectDetection(Owlv2Config(text_config=text, vision_config=vision, projection_dim=128))
    sb.start_vision(model.owlv2.vision_model, SIDE // PATCH)
    for head in (model.box_head, model.objectness_head):  # transformers starts these far too large to learn from
        for part, std in ((head.dense0, 192**-0.5), (head.dense1, 192**-0.5), (head.dense2, 0.01)):
            nn.init.normal_(part.weight, std=std)
    nn.init.normal_(model.class_head.dense0.weight, std=192**-0.5)
    # Start at a chance of about 0.2 %, the share of (token, word) pairs that match, with a scale that can tell apart.
    nn.init.zeros_(model.class_head.logit_shift.weight)
    nn.init.constant_(model.class_head.logit_shift.bias, -0.5)
    nn.init.zeros_(model.class_head.logit_scale.weight)
    nn.init.constant_(model.class_head.logit_scale.bias, 11.0)
    # The parts of OWLv2 that only whole-image embedding uses keep their start values: nothing here trains them.
    for name, parameter in model.named_parameters():
        if name in ("owlv2.logit_scale", "owlv2.visual_projection.weight"):
            parameter.requires_grad_(False)
    return model


class Queries:
    """Every surface form of every word, and absent words: token ids, and which classes each form names."""

    def __init__(self, tokenizer, device):
        rows = [(form, name) for name in st.WORDS.names for form in st.WORDS.bare(name)]
        rows += [(form, None) for word in ABSENT for form in (word, f"a {word}", f"{word}s")]
        self.texts = [form for form, _ in rows]
        self.names = [name for _, name in rows]
        member = torch.zeros(len(world.CLASSES) + 1, len(rows))
        for i, (_, name) in enumerate(rows):
            if name:
                member[st.WORDS.members[name], i] = 1
        self.member = member.to(device)  # the last row, of class -1, is empty
        self.ids = torch.tensor(clip_tokenizer.encode(tokenizer, self.texts, LENGTH, PAD), device=device)
        first = {}
        for i, (form, name) in enumerate(rows):
            if form == name:
                first[name] = i
        self.plain = torch.tensor([first[n] for n in st.WORDS.names], device=device)
        rest = torch.ones(len(rows), dtype=torch.bool)
        rest[list(first.values())] = False
        self.rest = rest.nonzero()[:, 0].to(device)


def image_features(model, images):
    """Features [B, 256, width] of pictures in 0..1 at each patch."""
    grid = model.image_embedder(sb.normalise(images))[0]
    return grid.flatten(1, 2)


def query_features(model, ids):
    """Unit embeddings [Q, 128] of token ids [Q, 16], as the model's own forward makes them."""
    hidden = model.owlv2.text_model(input_ids=ids).pooler_output
    return F.normalize(model.owlv2.text_projection(hidden).float(), dim=-1)


def heads(model, features, queries):
    """Logits [B, tokens, Q], boxes [B, tokens, 4] (centre and size, 0..1) and objectness logits, in f32."""
    features = features.float()
    logits = model.class_head(features, queries, None)[0]
    boxes = torch.sigmoid(model.box_head(features) + model.box_bias)
    return logits, boxes, model.objectness_predictor(features)


def corners(boxes):
    """Centre and size to corners."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def overlap(a, b):
    """IoU and generalised IoU of boxes given by corners; leading dimensions broadcast."""
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    area = lambda x: (x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1)  # noqa: E731
    union = area(a) + area(b) - inner
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    iou = inner / union.clamp(min=1e-7)
    return iou, iou - (hull - union) / hull.clamp(min=1e-7)


def assign(classes, boxes, grid=SIDE // PATCH):
    """Which object each token answers for.

    Returns [B, tokens]: the object's number or -1; whether the token lies in its middle half (it is taught the words);
    and [B, tokens, objects]: tokens in the middle of an object or just around it, which are not taught its absence.
    """
    axis = (torch.arange(grid, device=boxes.device) + 0.5) / grid
    x, y = axis.repeat(grid), axis.repeat_interleave(grid)
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-4)
    centre = (boxes[..., 2:] + boxes[..., :2]) / 2
    dx, dy = (x - centre[..., :1]).abs(), (y - centre[..., 1:]).abs()        # [B, objects, tokens]
    share = torch.maximum(dx / (size[..., :1] / 2), dy / (size[..., 1:] / 2))
    far = torch.where((classes >= 0)[..., None], torch.sqrt(dx**2 + dy**2), torch.inf)
    middle, around = share < 0.5, share < 0.8
    nearest = F.one_hot(far.argmin(-1), len(x)).bool()                       # small objects have at least one token
    middle = (middle | nearest) & (classes >= 0)[..., None]
    around = (around | middle) & (classes >= 0)[..., None]
    # A token takes the object whose middle is nearest; the one token that an object needs is never taken from it.
    cost = torch.where(middle, far - nearest * 10.0, torch.where(around, far + 5.0, torch.inf))
    best, owner = cost.min(1)
    taken = best < 5.0
    return torch.where(torch.isfinite(best), owner, -1), taken, around.transpose(1, 2)


def frame(images, labels, d):
    """Turns some pictures into what the processor makes of non-square ones: right or lower part padded grey or black."""
    size, boxes, classes = images.shape[-1], labels["boxes"].clone(), labels["classes"].clone()
    for i in (torch.rand(len(images), generator=d) < 0.1).nonzero()[:, 0].tolist():
        share, wide, shade = (float(v) for v in torch.rand(3, generator=d))
        edge = int(size * (0.6 + 0.35 * share))
        shade = 0.5 if shade < 0.5 else 0.0
        axis = 1 if wide < 0.5 else 0
        if axis:
            images[i, :, edge:] = shade
        else:
            images[i, :, :, edge:] = shade
        cut = boxes[i].clone()
        cut[:, axis::2] = cut[:, axis::2].clamp(max=edge / size)
        full = (boxes[i, :, 2:] - boxes[i, :, :2]).prod(-1).clamp(min=1e-6)
        left = (cut[:, 2:] - cut[:, :2]).clamp(min=0).prod(-1)
        classes[i][left < 0.5 * full] = -1
        boxes[i] = cut
    return images, {**labels, "boxes": boxes, "classes": classes}


class Trainer:
    """Model, data and optimiser of a run."""

    def __init__(self, args, tokenizer, pool):
        self.args, self.pool = args, pool
        self.device = torch.device(args.device)
        torch.manual_seed(args.seed)
        self.queries = Queries(tokenizer, self.device)
        self.model = build(tokenizer.get_vocab_size(), tokenizer.token_to_id(clip_tokenizer.END)).to(self.device)
        if args.resume:
            from transformers import Owlv2ForObjectDetection

            known = Owlv2ForObjectDetection.from_pretrained(resumed(args), dtype=torch.float32).state_dict()
            self.model.load_state_dict(known)
        self.peak = 4e-4 if args.resume else 1.2e-3
        self.optimiser = torch.optim.AdamW(sb.groups([self.model], 0.05), lr=1e-3, betas=(0.9, 0.97),
                                           fused=self.device.type == "cuda")
        self.average = sb.Average(self.model)
        self.generator = torch.Generator(self.device).manual_seed(args.seed)
        self.choice = torch.Generator().manual_seed(args.seed)
        self.vae = Vae(args.vae, self.device)

    def step(self, number, progress):
        """One update. Returns the parts of its loss as tensors."""
        batch = self.pool.next()
        images = render.corrupt(render.render(batch["packed"], self.device, seed=number), self.generator, self.vae.call)
        images, labels = frame(images, sb.to_device(batch, self.device), self.choice)
        classes, boxes = labels["classes"].long(), labels["boxes"]
        pick = torch.randperm(len(self.queries.rest), generator=self.choice)[: 24 if self.args.smoke else 120]
        chosen = torch.cat([self.queries.plain, self.queries.rest[pick.to(self.device)]])
        with sb.autocast(self.device):
            features = image_features(self.model, images)
            text = query_features(self.model, self.queries.ids[chosen])
        logits, guess, thing = heads(self.model, features, text)
        parts = self.losses(logits, guess, thing, classes, boxes, chosen)
        loss = parts["words"] + 2 * parts["giou"] + 5 * parts["l1"] + parts["thing"]
        for group in self.optimiser.param_groups:
            group["lr"] = sb.rate(progress, self.peak)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.average.update()
        return parts

    def losses(self, logits, guess, thing, classes, boxes, chosen):
        owner, taken, around = assign(classes, boxes)
        member = self.queries.member[:, chosen]
        mine = classes.gather(1, owner.clamp(min=0))
        target = member[torch.where(taken, mine, -1)]
        # Not taught as absent: words of objects that the token lies in or next to, but does not answer for.
        unsure = torch.einsum("bpo,boq->bpq", around.float(), member[classes]) > 0
        weight = ((target > 0) | ~unsure).float()
        words = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum") / target.sum().clamp(min=1)
        at = owner >= 0
        true = boxes.gather(1, owner.clamp(min=0)[..., None].expand(-1, -1, 4))[at]
        found = corners(guess[at])
        count = max(1, len(true))
        return {
            "words": words,
            "giou": (1 - overlap(found, true)[1]).sum() / count,
            "l1": (found - true).abs().sum() / count / 4 * 2,
            "thing": F.binary_cross_entropy_with_logits(thing, taken.float(), (taken | ~at).float()),
        }

    def run(self, clock, most):
        """Steps until the clock or `most` steps end it. Returns how many were made."""
        number = 0
        while number < most and (progress := clock.progress()) < 1:
            parts = self.step(number, progress)
            if number % 100 == 0:
                shown = " ".join(f"{k} {v.item():.4f}" for k, v in parts.items())
                print(f"{clock.spent():6.0f} s  step {number:5d}  {shown}", flush=True)
            number += 1
        self.average.apply()
        return number


def resumed(args):
    folder = Path(args.resume)
    return folder / "detector" if (folder / "detector").exists() else folder


class Tally:
    """Counts of the evaluation."""

    def __init__(self):
        self.hits = {}

    def add(self, name, good, total):
        a, b = self.hits.get(name, (0, 0))
        self.hits[name] = (a + int(good), b + int(total))

    def shares(self):
        return {k: a / max(1, b) for k, (a, b) in self.hits.items()}


@torch.no_grad()
def score_batch(tally, prefix, score, boxes, classes, truth, queries):
    """Adds one batch: `score` [B, tokens, words], predicted corners [B, tokens, 4], true classes and corners."""
    member = queries.member[:, queries.plain]
    iou = overlap(boxes[:, :, None], truth[:, None])[0]                     # [B, tokens, objects]
    there = classes >= 0
    named = member[classes] > 0                                            # [B, objects, words]
    present = named.any(1)
    best, where = score.max(1)                                             # [B, words]
    best_iou = iou.gather(1, where[..., None].expand(-1, -1, iou.shape[2]))  # [B, words, objects]
    right = ((best_iou >= 0.5) & named.transpose(1, 2)).any(-1) & (best > FOUND)
    kinds = torch.tensor([st.WORDS.members[n] == [world.CLASS.get(n, -1)] for n in st.WORDS.names], device=score.device)
    tally.add(f"{prefix}best_box_class", (right & present & kinds).sum(), (present & kinds).sum())
    tally.add(f"{prefix}best_box_broad", (right & present & ~kinds).sum(), (present & ~kinds).sum())
    own = torch.tensor([st.WORDS.index[n] for n in world.NAMES] + [0], device=score.device)[classes]
    mine = score.gather(2, own[:, None].expand(-1, score.shape[1], -1))     # [B, tokens, objects]
    found = ((mine > FOUND) & (iou >= 0.5)).any(1) & there
    tally.add(f"{prefix}objects_found", found.sum(), there.sum())
    small = there & ((truth[..., 2:] - truth[..., :2]).amax(-1) * SIDE < 48)
    tally.add(f"{prefix}objects_found_under_48px", (found & small).sum(), small.sum())
    tally.add(f"{prefix}absent_under_limit", ((best < FOUND) & ~present).sum(), (~present).sum())


@torch.no_grad()
def evaluate(model, tokenizer, pool, args, vae):
    """Named objects found, and absent words, on held-out scenes as drawn and corrupted."""
    device = torch.device(args.device)
    queries = Queries(tokenizer, device)
    generator = torch.Generator(device).manual_seed(5)
    plain = query_features(model, queries.ids[queries.plain])
    unseen = query_features(model, torch.tensor(clip_tokenizer.encode(tokenizer, ABSENT_UNSEEN, LENGTH, PAD), device=device))
    tally = Tally()
    for number in range(2 if args.smoke else 16):
        batch = pool.next()
        labels = sb.to_device(batch, device)
        images = render.render(batch["packed"], device, seed=800000 + number)
        for prefix, shown in (("", images), ("corrupt_", render.corrupt(images, generator, vae))):
            logits, boxes, thing = heads(model, image_features(model, shown), torch.cat([plain, unseen]))
            score, boxes = logits.sigmoid(), corners(boxes)
            score_batch(tally, prefix, score[..., : len(plain)], boxes, labels["classes"].long(), labels["boxes"], queries)
            low = score[..., len(plain):].amax(1) < FOUND
            tally.add(f"{prefix}unknown_words_under_limit", low.sum(), low.numel())
            owner, taken, _ = assign(labels["classes"].long(), labels["boxes"])
            tally.add(f"{prefix}objectness_right", ((thing > 0) == taken)[taken | (owner < 0)].sum(), (taken | (owner < 0)).sum())
    return tally.shares()


PREPROCESSOR = {
    "image_processor_type": "Owlv2ImageProcessor", "processor_class": "Owlv2Processor",
    "do_rescale": True, "rescale_factor": 1 / 255, "do_pad": True,
    "do_resize": True, "size": {"height": SIDE, "width": SIDE}, "resample": 2,
    "do_normalize": True, "image_mean": list(sb.CLIP_MEAN), "image_std": list(sb.CLIP_STD),
}


def export(model, tokenizer, folder):
    """The model folder as plain OWLv2 loaders expect it."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    size = sb.save_model(model, folder)
    clip_tokenizer.save(tokenizer, folder, LENGTH, "!")
    sb.write_json(folder / "preprocessor_config.json", PREPROCESSOR)
    return size


@torch.no_grad()
def reload(folder, tokenizer, device):
    """Loads the folder as its users do and checks that its own forward and processor give this script's numbers.
    Returns the model in f32 with the weights as stored."""
    from PIL import Image
    from transformers import Owlv2ForObjectDetection, Owlv2Processor

    model = Owlv2ForObjectDetection.from_pretrained(folder, dtype=torch.float32).eval()
    processor = Owlv2Processor.from_pretrained(folder)
    rng = random.Random(77)
    images = (render.render([world.sample(rng) for _ in range(2)], "cpu", seed=3) * 255).round() / 255
    pictures = [Image.fromarray((x.permute(1, 2, 0) * 255).round().byte().numpy()) for x in images]
    words = ["person", "slot machine", "a glass of wine"]
    inputs = processor(text=[words] * 2, images=pictures, return_tensors="pt")
    out = model(**inputs)
    ids = torch.tensor(clip_tokenizer.encode(tokenizer, words, LENGTH, PAD))
    logits, boxes, thing = heads(model, image_features(model, images), query_features(model, ids))
    pairs = ((out.logits, logits), (out.pred_boxes, boxes), (out.objectness_logits, thing))
    difference = max(float((a.sigmoid() - b.sigmoid()).abs().max()) for a, b in pairs)
    if not difference < 2e-3:
        raise SystemExit(f"the reloaded folder detects differently, by {difference:.4f}")
    processor.post_process_grounded_object_detection(out, threshold=FOUND, target_sizes=[(SIDE, SIDE)] * 2)
    return model.to(device), difference


def choose_tokenizer(args):
    if args.resume:
        return clip_tokenizer.load(resumed(args))
    if args.tokenizer:
        return clip_tokenizer.load(args.tokenizer)
    import relevance

    return relevance.make_tokenizer(st.bank_texts(400 if args.smoke else 24000, args.seed), args.seed)


def main():
    parser = sb.arguments(__doc__)
    parser.add_argument("--tokenizer", help="folder whose tokenizer to share (default: the relevance encoder's, made anew)")
    args = parser.parse_args()
    clock = sb.Clock(args.seconds, 8 if args.smoke else 35)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    size = args.batch or (6 if args.smoke else 192)
    pool = sb.ScenePool(args.workers, size=size, mixes=sb.MIXES, seed=args.seed + 50, empty=0.01)
    held_pool = sb.ScenePool(min(2, args.workers), size=size, mixes=sb.MIXES[:2], seed=args.seed + 950, reuse=False, erased=0.0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    tokenizer = choose_tokenizer(args)
    trainer = Trainer(args, tokenizer, pool)
    print(f"{sum(p.numel() for p in trainer.model.parameters())} parameters, {len(trainer.queries.texts)} queries, "
          f"{clock.spent():.0f} s", flush=True)
    steps = trainer.run(clock, 4 if args.smoke else 10**9)
    pool.close()
    print(f"trained {steps} steps of {size} scenes, {clock.spent():.0f} s", flush=True)
    written = export(trainer.model, tokenizer, out / "detector")
    model, difference = reload(out / "detector", tokenizer, trainer.device)
    numbers = {"steps": steps, "batch": size, **written, "reload_difference": difference}
    numbers.update(evaluate(model, tokenizer, held_pool, args, trainer.vae.call))
    held_pool.close()
    numbers["seconds"] = round(clock.spent())
    sb.write_json(out / "metrics.json", numbers)
    rows = []
    for prefix, note in (("", "as drawn"), ("corrupt_", "corrupted")):
        rows += [
            (f"objects found among boxes over {FOUND}, {note}", numbers[prefix + "objects_found"], ">= 0.95"),
            (f"  of those under 48 px, {note}", numbers[prefix + "objects_found_under_48px"], ""),
            (f"best box of a class word is right, {note}", numbers[prefix + "best_box_class"], ">= 0.95"),
            (f"best box of a category or group word, {note}", numbers[prefix + "best_box_broad"], ">= 0.95"),
            (f"absent words under {FOUND}, {note}", numbers[prefix + "absent_under_limit"], "mostly"),
            (f"words never seen under {FOUND}, {note}", numbers[prefix + "unknown_words_under_limit"], ""),
        ]
    rows += [("parameters", numbers["parameters"], "<= 8 M"), ("bytes", numbers["bytes"], "<= 15 MiB")]
    sb.table("Detector on held-out scenes", rows)


if __name__ == "__main__":
    main()
