"""Trains the embedded relevance encoder, a CLIP model of 4 M parameters, and the domain test that rests on it.

    python relevance.py --seconds 400 --out OUT --device cuda:0 --workers 5 [--vae SUITE/generator/vae] [--resume OUT]
    python relevance.py --measure-domain OUT --photos FOLDER     # afterwards, where photographs are

Writes OUT/relevance (a CLIP folder in Hugging Face layout, bf16), OUT/domain.json and OUT/domain.safetensors (what the
models know, and how to tell pictures of anything else) and OUT/metrics.json.

The loss is sigmoidal, its logits are scale x (cosine - 0.22): CLUE's relevance scan (section 3.2) keeps a rule from a
cosine of 0.22 on, so that cosine is made to mean "even odds". A text that holds of a scene is pulled over it, one that
names something absent is pushed under it; where all is there but does not touch, it is pushed only gently. Patch tokens
learn on the side which classes they lie on and who touches what, pooled pictures and texts what they show and name;
those heads are thrown away. Outliers (outliers.py) are
pushed away from every text and from an anchor text that every scene is pulled to.
"""

import functools
import json
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

import clip_tokenizer
import outliers
import render
import scene_batches as sb
import scene_text as st
import world
from round_trip import Vae

THRESHOLD = 0.22
LENGTH = 48  # text positions
NAME = (
    "Pictures of the scene world: one to six emoji sprites (people, animals, fire, weapons, drinks and other things) "
    "on a plain or textured background, and rules about what is visible in them or who touches what."
)
ADVICE = (
    "The embedded models were trained on emoji scenes only and cannot judge anything else. Fetch models for real "
    "pictures with `cluegate models pull laptop` and name them with --models laptop (docs/models.md has larger ones), or ask "
    "`judge` for a guess all the same with --force."
)


def build(vocabulary, end):
    """A CLIPModel from scratch: ViT 192 x 6 with 16 px patches at 224 px, text 128 x 4, projection 192."""
    from transformers import CLIPConfig, CLIPModel

    special = {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    text = {"vocab_size": vocabulary, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4,
            "num_attention_heads": 4, "max_position_embeddings": LENGTH, "projection_dim": 192, **special}
    vision = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6,
              "image_size": 224, "patch_size": 16, "projection_dim": 192}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=192, logit_scale_init_value=2.6592)
    model = CLIPModel(config)
    sb.start_vision(model.vision_model, 14)
    return model


def embed_images(model, images):
    """Unit embeddings [B, d], patch tokens [B, 196, width] and pooled states [B, width] of pictures in 0..1."""
    out = model.vision_model(pixel_values=sb.normalise(images))
    embedding = F.normalize(model.visual_projection(out.pooler_output).float(), dim=-1)
    return embedding, out.last_hidden_state[:, 1:], out.pooler_output


def read_texts(model, ids):
    """Unit embeddings [T, d] and pooled states [T, width] of token ids [T, 48]."""
    pooled = model.text_model(input_ids=ids).pooler_output
    return F.normalize(model.text_projection(pooled).float(), dim=-1), pooled


def embed_texts(model, ids):
    """Unit embeddings [T, d] of token ids [T, 48]."""
    return read_texts(model, ids)[0]


@functools.lru_cache(maxsize=8)
def bond_kinds(device):
    """The kind of touching of each pair of classes [classes, classes], -1 where there is none."""
    return torch.tensor([[render.BOND.get((s, h), -1) for h in world.CATEGORY] for s in world.CATEGORY]).to(device)


def patch_targets(labels, grid=14):
    """What each patch lies on [B, patches, classes + kinds of touching]: 1 where its centre is in an object's box."""
    classes, boxes, touched = labels["classes"].long(), labels["boxes"], labels["touched"].long()
    axis = (torch.arange(grid, device=boxes.device) + 0.5) / grid
    inside = ((axis[None, None, None] >= boxes[..., 0, None, None]) & (axis[None, None, None] < boxes[..., 2, None, None])
              & (axis[None, None, :, None] >= boxes[..., 1, None, None]) & (axis[None, None, :, None] < boxes[..., 3, None, None]))
    inside = (inside.flatten(2) & (classes >= 0)[..., None]).float()
    kinds = bond_kinds(boxes.device)
    subject = classes.gather(1, touched.clamp(min=0))
    bound = (touched >= 0) & (classes >= 0) & (subject >= 0)
    bond = torch.where(bound, kinds[subject.clamp(min=0), classes.clamp(min=0)], -1)
    hot = lambda x, n: F.one_hot(x.clamp(min=0), n).float() * (x >= 0)[..., None]  # noqa: E731
    on_class = torch.einsum("bop,bok->bpk", inside, hot(classes, len(world.CLASSES)))
    both = inside + inside.gather(1, touched.clamp(min=0)[..., None].expand_as(inside))
    on_bond = torch.einsum("bop,bok->bpk", both, hot(bond, len(render.BONDS)))
    return torch.cat([on_class, on_bond], -1).clamp(max=1)


def graded_loss(cosine, scale, grade):
    """Sigmoid loss of cosines [B, T] against grades 0, 1, 2; each grade counts the same however common it is, and
    within a grade what is judged wrongly counts more."""
    logits = scale * (cosine - THRESHOLD)
    chance = logits.detach().sigmoid()
    total = 0.0
    # A violated rule that is filtered is lost; a rule kept in vain costs some questions.
    for level, target, share in ((2, 1.0, 2.5), (0, 0.0, 1.0), (1, 0.25, 0.25)):
        weight = (grade == level).float() * (0.15 + (chance - target).abs())
        loss = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target), reduction="none")
        total = total + share * (loss * weight).sum() / weight.sum().clamp(min=1e-3)
    return total


class Texts:
    """Every text of a run as token ids: the shipped rules, the bank to draw from, the anchor."""

    def __init__(self, tokenizer, bank, device):
        self.tokenizer, self.device = tokenizer, device
        self.pad = tokenizer.token_to_id(clip_tokenizer.END)
        rules = [("rule", text, meaning) for _, text, meaning in st.shipped_rules()]
        self.rules = st.TextBank(rules, self.encode([r[1] for r in rules]), device)
        self.bank = st.TextBank(bank, self.encode([b[1] for b in bank]), device)
        self.anchor = torch.tensor(self.encode([st.ANCHOR]), device=device)

    def encode(self, texts):
        return clip_tokenizer.encode(self.tokenizer, texts, LENGTH, self.pad)


def make_tokenizer(bank, seed):
    """The shared tokenizer of relevance encoder and detector, trained on rules, statements and captions."""
    rng = random.Random(seed)
    captions = [world.caption(world.sample(rng), rng) for _ in range(3000)]
    words = [form for name in st.WORDS.names for form in st.WORDS.bare(name)]
    rules = [text for _, text, _ in st.shipped_rules()]
    return clip_tokenizer.train([b[1] for b in bank] + captions + (words + rules + st.FUNCTION_WORDS + [st.ANCHOR]) * 20)


class SideHeads(nn.Module):
    """Linear readings that training needs and the exported model lacks: of each patch, which classes it lies on and
    who touches what there; of a picture and of a text, which literals hold or are named. Without them both towers stay
    for long at the answer that fits every pair alike."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Linear(192, len(world.CLASSES) + len(render.BONDS))
        self.picture = nn.Linear(192, st.WORDS.true)
        self.text = nn.Linear(128, st.WORDS.true)
        for head in (self.patch, self.picture, self.text):
            nn.init.constant_(head.bias, -4.0)

    def losses(self, patches, picture, text, targets):
        """Binary cross-entropies against targets in the same order; what is there weighs more than what is not."""
        read = (self.patch(patches), self.picture(picture), self.text(text))
        return [F.binary_cross_entropy_with_logits(r.float(), t, pos_weight=t.new_tensor(w)) * share
                for r, t, w, share in zip(read, targets, (5.0, 8.0, 20.0), (20.0, 10.0, 10.0))]


class Trainer:
    """Model, data and optimiser of a run."""

    def __init__(self, args, tokenizer, bank, pool, size):
        self.args, self.pool, self.size = args, pool, size
        self.device = torch.device(args.device)
        torch.manual_seed(args.seed)
        self.texts = Texts(tokenizer, bank, self.device)
        self.model = build(tokenizer.get_vocab_size(), self.texts.pad).to(self.device)
        if args.resume:
            from transformers import CLIPModel

            folder = Path(args.resume) / "relevance" if (Path(args.resume) / "relevance").exists() else Path(args.resume)
            self.model.load_state_dict(CLIPModel.from_pretrained(folder, dtype=torch.float32).state_dict())
        self.side = SideHeads().to(self.device)
        self.peak = 5e-4 if args.resume else 1.5e-3
        fused = self.device.type == "cuda"
        self.optimiser = torch.optim.AdamW(sb.groups([self.model, self.side], 0.05), lr=1e-3, betas=(0.9, 0.97), fused=fused)
        self.average = sb.Average(self.model)
        self.generator = torch.Generator(self.device).manual_seed(args.seed)
        self.choice = torch.Generator().manual_seed(args.seed)
        self.vae = Vae(args.vae, self.device)
        self.outliers = outliers.OutlierPool(self.device, args.seed + 7, count=64 if args.smoke else 3072,
                                             fresh=4 if args.smoke else 16)
        self.strange = max(4, size // 4)

    def pictures(self, batch, seed):
        images = render.render(batch["packed"], self.device, seed=seed)
        if self.outliers.filled < len(self.outliers.store):
            self.outliers.fill(images, step=min(64, len(images)))
        other = self.outliers.sample(self.strange, images)
        return torch.cat([render.corrupt(images, self.generator, self.vae.call), render.corrupt(other, self.generator)])

    def step(self, number, progress):
        """One update. Returns the parts of its loss as tensors."""
        batch = self.pool.next()
        labels = sb.to_device(batch, self.device)
        images = self.pictures(batch, number)
        scenes = len(labels["classes"])
        truth = st.facts(labels["classes"], labels["touched"], self.device)
        chosen = torch.randint(0, len(self.texts.bank), (16 if self.args.smoke else 352,), generator=self.choice).to(self.device)
        told = min(scenes, 8 if self.args.smoke else 96)
        captions = torch.tensor(self.texts.encode(batch["captions"][:told]), device=self.device)
        caption_grade, caption_named = st.caption_grades(labels["classes"], labels["touched"], truth)
        caption_grade = caption_grade[:, :told]
        named = torch.cat([self.texts.rules.named, self.texts.bank.named[chosen], caption_named[:told]])
        grade = torch.cat([self.texts.rules.grade(truth), self.texts.bank.grade(truth, chosen), caption_grade], 1)
        ids = torch.cat([self.texts.rules.ids, self.texts.bank.ids[chosen], captions, self.texts.anchor])
        with sb.autocast(self.device):
            image, patches, pooled = embed_images(self.model, images)
            text, told_of = read_texts(self.model, ids)
            targets = (patch_targets(labels), truth[:, : st.WORDS.true].float(), named)
            cover, seen, said = self.side.losses(patches[:scenes], pooled[:scenes], told_of[:-1], targets)
        cosine, scale = image @ text.T, self.model.logit_scale.clamp(max=4.6).exp()
        rules = len(self.texts.rules)
        main = graded_loss(cosine[:scenes, :-1], scale, grade)
        shipped = graded_loss(cosine[:scenes, :rules], scale, grade[:, :rules])
        # Scenes to the anchor, outliers from it; outliers from every other text as well.
        anchor = torch.cat([-cosine[:scenes, -1], cosine[scenes:, -1]])
        sign = torch.cat([torch.full((scenes,), -THRESHOLD), torch.full((self.strange,), THRESHOLD)]).to(self.device)
        home = F.softplus(scale * (anchor - sign))
        home = home[:scenes].mean() + home[scenes:].mean()
        away = F.softplus(scale * (cosine[scenes:, :-1] - THRESHOLD)).mean()
        help_ = cover + seen + said
        loss = main + 0.5 * shipped + 0.6 * home + 0.3 * away + (1.0 if progress < 0.7 else 0.3) * help_
        for group in self.optimiser.param_groups:
            group["lr"] = sb.rate(progress, self.peak)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.average.update()
        return {"main": main, "rules": shipped, "home": home, "cover": cover, "seen": seen, "said": said, "scale": scale}

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


def bench_scenes(pool, rules, batches, each):
    """Scenes like those of the benchmark: `each` violating and as many borderline ones a rule. Returns (packed parts,
    violations [N, rules] bool, all grades)."""
    drawn = [pool.next() for _ in range(batches)]
    grades = torch.cat([rules.grade(st.facts(torch.from_numpy(b["classes"]), torch.from_numpy(b["touched"]), "cpu"))
                        for b in drawn])
    where = [(b, i) for b in range(len(drawn)) for i in range(len(drawn[b]["classes"]))]
    subject = torch.cat([torch.from_numpy(b["classes"]) for b in drawn])
    people = torch.tensor([world.ROLE[c] == "subject" for c in range(len(world.CLASSES))] + [False])[subject.long()].any(1)
    picked = []
    for rule in range(len(rules)):
        bad = (grades[:, rule] == 2).nonzero()[:each, 0].tolist()
        near = (grades[:, rule] == 1).nonzero()[: each // 2, 0].tolist()
        half = ((grades[:, rule] == 0) & people).nonzero()[rule * each:][: each - len(near), 0].tolist()
        picked += bad + near + half
    parts = {}
    for k in picked:
        parts.setdefault(where[k][0], []).append((where[k][1], k))
    chosen = [(drawn[b]["packed"], [i for i, _ in rows], [k for _, k in rows]) for b, rows in parts.items()]
    order = [k for _, _, rows in chosen for k in rows]
    return chosen, grades[order]


def take(packed, rows):
    """Some scenes of a `render.Packed`."""
    return render.Packed(*(getattr(packed, f)[rows] for f in ("sprite", "cls", "place", "bonds", "background", "fills")))


@torch.no_grad()
def embed_bench(model, chosen, device, vae, dirty):
    generator = torch.Generator(device).manual_seed(5)
    out = []
    for number, (packed, rows, _) in enumerate(chosen):
        images = render.render(take(packed, rows), device, seed=90000 + number)
        if dirty:
            images = render.corrupt(images, generator, vae)
        out.append(embed_images(model, images)[0])
    return torch.cat(out)


@torch.no_grad()
def evaluate(model, texts, held_out, pool, args, vae):
    """The relevance scan on benchmark-like scenes: rows of a table and numbers by name."""
    device = torch.device(args.device)
    small = args.smoke
    cpu_rules = st.TextBank([("rule", t, m) for _, t, m in st.shipped_rules()], texts.rules.ids.tolist(), "cpu")
    chosen, grade = bench_scenes(pool, cpu_rules, 4 if small else 90, 3 if small else 60)
    violated = grade == 2
    numbers = {"pictures": len(grade), "violated_pairs": int(violated.sum())}
    text = embed_texts(model, texts.rules.ids)
    for name, dirty in (("clean", False), ("corrupt", True)):
        image = embed_bench(model, chosen, device, vae, dirty)
        kept = ((image @ text.T) >= THRESHOLD).cpu()
        numbers[f"kept_violated_{name}"] = float(kept[violated].float().mean())
        numbers[f"filtered_pairs_{name}"] = float((~kept).float().mean())
        numbers[f"filtered_absent_{name}"] = float((~kept[grade == 0]).float().mean())
        numbers[f"filtered_apart_{name}"] = float((~kept[grade == 1]).float().mean())
        numbers[f"kept_by_rule_{name}"] = {
            rule: float(kept[:, i][violated[:, i]].float().mean()) for i, rule in enumerate(r[0] for r in st.shipped_rules())}
    bank = st.TextBank(held_out, texts.encode([t[1] for t in held_out]), device)
    parts = []
    image = embed_bench(model, chosen[:40], device, vae, True)
    for packed, rows, _ in chosen[:40]:
        parts.append(st.facts(*_labels(packed, rows), device))
    score = image @ embed_texts(model, bank.ids).T >= THRESHOLD
    paraphrase = bank.grade(torch.cat(parts))
    numbers["paraphrases_kept_true"] = float(score[paraphrase == 2].float().mean())
    numbers["paraphrases_filtered_absent"] = float((~score[paraphrase == 0]).float().mean())
    return numbers


def _labels(packed, rows):
    """Classes and touched subjects of packed scenes without fills, from their bonds."""
    part = take(packed, rows)
    classes = torch.from_numpy(part.cls.copy())
    classes[torch.from_numpy(part.place[..., 2] <= 0)] = -1
    touched = torch.full_like(classes, -1)
    place = part.place
    for b in range(len(part)):
        for h in range(classes.shape[1]):
            c = int(classes[b, h])
            if c < 0 or world.ROLE[c] != "hazard":
                continue
            for s in range(classes.shape[1]):
                d = int(classes[b, s])
                if d < 0 or world.ROLE[d] != "subject":
                    continue
                far = ((place[b, h, 0] - place[b, s, 0]) ** 2 + (place[b, h, 1] - place[b, s, 1]) ** 2) ** 0.5
                if far < world.TOUCH * (place[b, h, 2] + place[b, s, 2]):
                    touched[b, h] = s
    return classes, touched


@torch.no_grad()
def fit_domain(model, texts, pool, args, vae, out):
    """Mean and precision of scene embeddings, and limits that 0.3 % of a wide held-out set overstep. Writes
    domain.json and domain.safetensors."""
    device = torch.device(args.device)
    generator = torch.Generator(device).manual_seed(11)
    batches = 4 if args.smoke else 90
    wide = []
    for number in range(batches):
        images = render.render(pool.next()["packed"], device, seed=700000 + number)
        wide.append(embed_images(model, render.corrupt(images, generator, vae))[0])
    fit, held = torch.cat(wide[: batches * 2 // 3]), torch.cat(wide[batches * 2 // 3:])
    mean = fit.mean(0)
    centred = (fit - mean).double()
    covariance = centred.T @ centred / len(fit)
    covariance += torch.eye(len(mean), device=device).double() * covariance.diagonal().mean() * 0.02
    precision = torch.linalg.inv(covariance).float()
    distance = mahalanobis(held, mean, precision)
    anchor = held @ embed_texts(model, texts.anchor)[0]
    strange = outlier_scores(model, texts, mean, precision, args)
    # Other renderers' scenes lie somewhat farther out than these; photographs lie at twice the distance.
    limits = {"max_distance": 1.22 * float(distance.quantile(0.9985)), "min_cosine": float(anchor.quantile(0.0015)) - 0.05}
    write_domain(out, mean, precision, limits)
    refused = (distance > limits["max_distance"]) | (anchor < limits["min_cosine"])
    far, near = strange
    return {
        **limits, "held_out": len(held), "refused_scenes": float(refused.float().mean()),
        "refused_outliers": float(((far > limits["max_distance"]) | (near < limits["min_cosine"])).float().mean()),
        "refused_outliers_distance_only": float((far > limits["max_distance"]).float().mean()),
        "refused_outliers_anchor_only": float((near < limits["min_cosine"]).float().mean()),
        "scene_anchor_median": float(anchor.median()), "scene_distance_median": float(distance.median()),
    }


def mahalanobis(points, mean, precision):
    """Distance (not squared) of points [N, d]."""
    away = points - mean
    return torch.einsum("nd,de,ne->n", away, precision, away).clamp(min=0).sqrt()


def outlier_scores(model, texts, mean, precision, args):
    """Distances and anchor cosines of fresh outliers."""
    device = torch.device(args.device)
    generator = torch.Generator(device).manual_seed(12345)
    images = [outliers.draw(generator, 4 if args.smoke else 32) for _ in range(4 if args.smoke else 48)]
    image = torch.cat([embed_images(model, x)[0] for x in images])
    return mahalanobis(image, mean, precision), image @ embed_texts(model, texts.anchor)[0]


def write_domain(out, mean, precision, limits):
    words = []
    try:
        import questions

        words = list(questions.CATALOGUE)
    except ImportError:
        pass  # the judge's statements are written in the same words
    save_file({"mean": mean.float().cpu().contiguous(), "precision": precision.float().cpu().contiguous()},
              str(out / "domain.safetensors"))
    (out / "domain.safetensors").chmod(0o644)
    sb.write_json(out / "domain.json", {
        "name": NAME,
        "relevance": {
            "file": "domain.safetensors", "max_distance": round(limits["max_distance"], 4),
            "anchor": {"text": st.ANCHOR, "min_cosine": round(limits["min_cosine"], 4)},
        },
        "vocabulary": st.vocabulary(words),
        "advice": ADVICE,
    })


PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True,
    "do_resize": True, "size": {"shortest_edge": 224}, "resample": 3,
    "do_center_crop": True, "crop_size": {"height": 224, "width": 224},
    "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": list(sb.CLIP_MEAN), "image_std": list(sb.CLIP_STD),
}


def export(model, tokenizer, folder):
    """The model folder as plain CLIP loaders expect it."""
    size = sb.save_model(model, folder)
    clip_tokenizer.save(tokenizer, folder, LENGTH, clip_tokenizer.END)
    sb.write_json(folder / "preprocessor_config.json", PREPROCESSOR)
    return size


@torch.no_grad()
def reload(folder, texts, device):
    """Loads the folder as its users do and checks that file, tokenizer and processor give this script's numbers.
    Returns the model in f32 with the weights as stored."""
    from PIL import Image
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    rng = random.Random(77)
    images = (render.render([world.sample(rng) for _ in range(4)], "cpu", seed=3) * 255).round() / 255
    pictures = [Image.fromarray((x.permute(1, 2, 0) * 255).round().byte().numpy()) for x in images]
    rules = [t for _, t, _ in st.shipped_rules()]
    tokens = AutoTokenizer.from_pretrained(folder)(rules, padding=True, return_tensors="pt")
    pixels = CLIPImageProcessor.from_pretrained(folder)(pictures, return_tensors="pt")
    out = model(**tokens, **pixels)
    theirs = out.image_embeds @ out.text_embeds.T
    ours = embed_images(model, images)[0] @ embed_texts(model, texts.rules.ids.cpu()).T
    difference = float((theirs - ours).abs().max())
    if not difference < 2e-3:
        raise SystemExit(f"the reloaded folder scores differently, by {difference:.4f}")
    return model.to(device), difference


def measure_domain(folder, photos):
    """Shares of photographs, and of freshly drawn scenes, that the domain test refuses. Changes nothing."""
    from PIL import Image
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    folder = Path(folder)
    domain = json.loads((folder / "domain.json").read_text(encoding="utf-8"))["relevance"]
    tensors = load_file(str(folder / domain["file"]))
    model = CLIPModel.from_pretrained(folder / "relevance", dtype=torch.float32).eval()
    processor = CLIPImageProcessor.from_pretrained(folder / "relevance")
    anchor = AutoTokenizer.from_pretrained(folder / "relevance")(domain["anchor"]["text"], return_tensors="pt")
    text = F.normalize(model.get_text_features(**anchor).pooler_output[0], dim=-1)

    def scores(pictures):
        pixels = processor(pictures, return_tensors="pt")["pixel_values"]
        image = F.normalize(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output), dim=-1)
        return torch.stack([mahalanobis(image, tensors["mean"], tensors["precision"]), image @ text], 1)

    def report(name, found):
        far, off = found[:, 0] > domain["max_distance"], found[:, 1] < domain["anchor"]["min_cosine"]
        print(f"{name}: {len(found)} pictures, refused {float((far | off).float().mean()):.4f} "
              f"(distance alone {float(far.float().mean()):.4f}, anchor alone {float(off.float().mean()):.4f}); "
              f"distance median {float(found[:, 0].median()):.2f}, anchor median {float(found[:, 1].median()):.3f}")
        return far | off

    with torch.no_grad():
        rng, generator = random.Random(4242), torch.Generator().manual_seed(1)
        for name, dirty in (("scenes as drawn", False), ("scenes corrupted", True)):
            found = []
            for seed in range(10):
                images = render.render([world.sample(rng) for _ in range(50)], "cpu", seed=5000 + seed)
                images = render.corrupt(images, generator) if dirty else images
                found.append(scores([Image.fromarray((x.permute(1, 2, 0) * 255).round().byte().numpy()) for x in images]))
            report(name, torch.cat(found))
        names = sorted(p for p in Path(photos).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
        found = []
        for path in names:
            with Image.open(path) as picture:
                found.append(scores([picture.convert("RGB")]))
        found = torch.cat(found)
        refused = report("photographs", found)
        for path, row, out in zip(names, found, refused):
            if not out:
                print(f"  accepted: {path.name}  distance {float(row[0]):.2f}  anchor {float(row[1]):.3f}")


def main():
    parser = sb.arguments(__doc__)
    parser.add_argument("--measure-domain", metavar="DIR", help="measure the domain test of DIR on photographs, train nothing")
    parser.add_argument("--photos", help="folder of photographs for --measure-domain")
    args = parser.parse_args()
    if args.measure_domain:
        return measure_domain(args.measure_domain, args.photos)
    clock = sb.Clock(args.seconds, 8 if args.smoke else 45)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    size = args.batch or (12 if args.smoke else 384)
    keywords = {"size": size, "mixes": sb.MIXES}
    pool = sb.ScenePool(args.workers, seed=args.seed, empty=0.015, **keywords)
    held_pool = sb.ScenePool(min(3, args.workers), seed=args.seed + 900, reuse=False, erased=0.0, **keywords)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    bank = st.bank_texts(400 if args.smoke else 24000, args.seed)
    known = {b[1] for b in bank}
    held_out = [b for b in st.bank_texts(800 if args.smoke else 2000, args.seed + 900) if b[1] not in known][:400]
    if args.resume:
        folder = Path(args.resume) / "relevance" if (Path(args.resume) / "relevance").exists() else Path(args.resume)
        tokenizer = clip_tokenizer.load(folder)
    else:
        tokenizer = make_tokenizer(bank, args.seed)
    trainer = Trainer(args, tokenizer, bank, pool, size)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    print(f"{parameters} parameters, vocabulary {tokenizer.get_vocab_size()}, {clock.spent():.0f} s", flush=True)
    steps = trainer.run(clock, 4 if args.smoke else 10**9)
    pool.close()
    print(f"trained {steps} steps of {size} scenes and {trainer.strange} outliers, {clock.spent():.0f} s", flush=True)
    written = export(trainer.model, tokenizer, out / "relevance")
    model, difference = reload(out / "relevance", trainer.texts, trainer.device)
    numbers = {"steps": steps, "batch": size, **written, "reload_difference": difference}
    numbers["domain"] = fit_domain(model, trainer.texts, held_pool, args, trainer.vae.call, out)
    sb.write_json(out / "metrics.json", numbers)
    numbers.update(evaluate(model, trainer.texts, held_out, held_pool, args, trainer.vae.call))
    held_pool.close()
    numbers["seconds"] = round(clock.spent())
    sb.write_json(out / "metrics.json", numbers)
    sb.table("Relevance encoder on held-out scenes", [
        ("violated rules kept, clean", numbers["kept_violated_clean"], ">= 0.966"),
        ("violated rules kept, corrupted", numbers["kept_violated_corrupt"], ">= 0.966"),
        ("(picture, rule) pairs filtered, clean", numbers["filtered_pairs_clean"], ">= 0.67"),
        ("(picture, rule) pairs filtered, corrupted", numbers["filtered_pairs_corrupt"], ">= 0.67"),
        ("  of those with something missing, corrupted", numbers["filtered_absent_corrupt"], ""),
        ("  of those all there but apart, corrupted", numbers["filtered_apart_corrupt"], ""),
        ("unseen texts that hold, kept", numbers["paraphrases_kept_true"], ""),
        ("unseen texts with something missing, filtered", numbers["paraphrases_filtered_absent"], ""),
        ("scenes refused by the domain test", numbers["domain"]["refused_scenes"], "< 0.01"),
        ("outliers refused by the domain test", numbers["domain"]["refused_outliers"], ""),
        ("parameters", numbers["parameters"], "<= 6 M"),
        ("bytes", numbers["bytes"], "<= 15 MiB"),
    ])
    print("kept by rule, corrupted:", numbers["kept_by_rule_corrupt"])


if __name__ == "__main__":
    main()
