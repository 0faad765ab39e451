"""Measures the judge on held-out scenes: the table of the suite, binding, and rules by chains of scores."""

import json
import random

import numpy as np
import torch

import questions
import world
from judge_data import LENGTH, scene_of
from judge_model import RowBuilder, stack
from questions import CATALOGUE, CONSTITUTION, asked
from render import corrupt, render

HELD_OUT = 77_000_000  # seeds from here on are never trained on
BATCH = 128


def score(network, images, statements, blind=False):
    """M(x, c) for each picture's list of statements; images None asks without a picture."""
    out = []
    for at in range(0, len(statements), BATCH):
        part = statements[at:at + BATCH]
        builders, ends = [], []
        for number, texts in enumerate(part):
            builder = RowBuilder(network.text, LENGTH)
            for statement in texts:
                if not builder.add([(asked(statement), None)], blind=blind):
                    raise ValueError("too many statements for one row")
            ends += [number * LENGTH + e for e in builder.ends]
            builders.append(builder)
        rows, *_ = stack(builders, LENGTH, 0)
        if images is None:
            features = torch.zeros(len(part), 64, 256, device=network.device)
        else:
            features = network.pictures(images[at:at + BATCH])
        states = network.states(features, network.rows(rows)).flatten(0, 1)[torch.tensor(ends, device=network.device)]
        probable = network.logits(states).float().softmax(-1)
        yes, no = (probable[:, ids].sum(1) for ids in (network.text.yes, network.text.no))
        flat = (yes / (yes + no)).tolist()
        for texts in part:
            out.append(flat[:len(texts)])
            flat = flat[len(texts):]
    return out


def draw(network, scenes, seed, corrupted, vae=None):
    """Pictures of the scenes, on the device."""
    images = []
    generator = torch.Generator(device=network.device).manual_seed(seed + 1)
    for at in range(0, len(scenes), BATCH):
        part = render(scenes[at:at + BATCH], network.device, seed=seed + at)
        images.append(corrupt(part, generator, vae) if corrupted else part)
    return torch.cat(images)


def auc(scores, truths):
    """Area under the ROC curve."""
    scores, truths = np.asarray(scores), np.asarray(truths, bool)
    order = scores.argsort(kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    for value in np.unique(scores[np.isin(scores, scores[order][1:][np.diff(scores[order]) == 0])]):
        ranks[scores == value] = ranks[scores == value].mean()
    right, wrong = truths.sum(), (~truths).sum()
    return float((ranks[truths].sum() - right * (right + 1) / 2) / max(1, right * wrong))


def statements_table(network, count, hard, corrupted, seed, vae=None):
    """Accuracy at 0.5 by kind and truth, AUC of relations, means without a picture."""
    rng = random.Random(HELD_OUT + seed)
    scenes = [world.sample(rng, hard=hard) for _ in range(count)]
    texts = [list(dict.fromkeys(questions.statement(s, rng) for _ in range(12))) for s in scenes]
    seen = score(network, draw(network, scenes, seed, corrupted, vae), texts)
    blind = score(network, None, texts, blind=True)
    groups = {}
    for scene, statements, ours, prior in zip(scenes, texts, seen, blind):
        for statement, m, p in zip(statements, ours, prior):
            query = CATALOGUE[statement]
            kind = "presence" if query.hazards is None else "relation"
            groups.setdefault((kind, questions.truth(scene, query)), []).append((m, p))
    out = {}
    for kind in ("presence", "relation"):
        both = {flag: np.array(groups[kind, flag]) for flag in (True, False)}
        out[kind] = {
            "accuracy_true": float((both[True][:, 0] > 0.5).mean()),
            "accuracy_false": float((both[False][:, 0] <= 0.5).mean()),
            "auc": auc(np.concatenate([both[True][:, 0], both[False][:, 0]]),
                       [True] * len(both[True]) + [False] * len(both[False])),
            "without_image_true": float(both[True][:, 1].mean()),
            "without_image_false": float(both[False][:, 1].mean()),
            "count": len(both[True]) + len(both[False])}
    return out


def binding(network, count, seed, vae=None):
    """Who is touched by what, on confusing scenes: accuracy of statements, share of scenes with all of them right."""
    rng = random.Random(HELD_OUT + seed)
    scenes, texts = [], []
    while len(scenes) < count:
        scene = world.sample(rng, hard=1.0)
        hazards = {CATALOGUE_HAZARD[o.category] for o in scene.visible() if o.category in CATALOGUE_HAZARD}
        if hazards and any(o.role == "subject" for o in scene.visible()):
            scenes.append(scene)
            texts.append([s for pair in sorted(hazards) for s in pair])
    scores = score(network, draw(network, scenes, seed, True, vae), texts)
    right = [[(m > 0.5) == questions.truth(scene, CATALOGUE[t]) for m, t in zip(row, names)]
             for scene, row, names in zip(scenes, scores, texts)]
    return {"accuracy": float(np.mean([r for row in right for r in row])),
            "scenes_all_right": float(np.mean([all(row) for row in right]))}


def _binding_pairs():
    out = {}
    for name in world.HAZARDS:
        template = world.CATEGORIES[name]["relation"][0]
        thing = questions.HAZARD_WORDS[name][0][1]
        out[name] = tuple(questions.relate(template, who, False, thing) for who in ("a person", "an animal"))
    return out


CATALOGUE_HAZARD = _binding_pairs()


def decide(m, prior):
    """How the thresholds of CLUE settle a statement: True, False, or None if they do not."""
    difference = m - prior
    if difference < -0.3 * prior:
        return False
    return True if difference > 0.8 * (1 - prior) else None


def rules_table(network, scenes, images):
    """Image and rule F1 of the shipped chains; statements between the thresholds are settled at 0.5."""
    scored = score(network, images, [questions.SHIPPED] * len(scenes))
    prior = dict(zip(questions.SHIPPED, score(network, None, [questions.SHIPPED], blind=True)[0]))
    counts = {rule: [0, 0, 0] for rule in world.RULES}  # hits, false alarms, misses
    images_counts, undecided, flawless = [0, 0, 0], 0, 0
    for scene, row in zip(scenes, scored):
        m = dict(zip(questions.SHIPPED, row))
        found = set()
        for rule in CONSTITUTION["rule"]:
            holds = True
            for link in rule["precondition"]:
                states = [decide(m[s["statement"]], prior[s["statement"]]) for s in link["any"]]
                if True not in states:
                    undecided += states.count(None)
                    if not any(state is None and m[s["statement"]] > 0.5 for state, s in zip(states, link["any"])):
                        holds = False
                        break
            if holds:
                found.add(rule["id"])
        true = world.violations(scene)
        flawless += found == true
        for rule in world.RULES:
            for k, hit in enumerate((rule in found & true, rule in found - true, rule in true - found)):
                counts[rule][k] += hit
        for k, hit in enumerate((found and true, found and not true, true and not found)):
            images_counts[k] += bool(hit)
    f1 = lambda c: 2 * c[0] / max(1, 2 * c[0] + c[1] + c[2])  # noqa: E731
    total = [sum(c[k] for c in counts.values()) for k in range(3)]
    return {"image_f1": f1(images_counts), "rule_f1": f1(total), "flawless": flawless / len(scenes),
            "undecided_per_image": undecided / len(scenes), "by_rule": {r: round(f1(c), 3) for r, c in counts.items()},
            "without_image": {s: round(p, 3) for s, p in prior.items()}}


def greedy(network, features, conversations, limit):
    """Greedy answers to the last question of each conversation (its answer None), a row each."""
    text, builders, tokens = network.text, [], []
    for turns in conversations:
        builder = RowBuilder(text, LENGTH)
        if not builder.add(turns):
            raise ValueError("the conversation is too long for a row")
        builders.append(builder)
        tokens.append([])
    rows, *_ = stack(builders, LENGTH, 0)
    ids, position, segment, parent = network.rows(rows)
    last = torch.tensor([b.ends[-1] for b in builders], device=network.device)
    every, done = torch.arange(len(builders), device=network.device), [False] * len(builders)
    for _ in range(limit):
        states = network.states(features, (ids, position, segment, parent))[every, last]
        picked = network.logits(states).argmax(-1)
        for number, token in enumerate(picked.tolist()):
            done[number] = done[number] or token in text.end
            if not done[number]:
                tokens[number].append(token)
        if all(done) or int(last.max()) + 1 >= LENGTH:
            break
        for array in (position, segment, parent):
            array[every, last + 1] = array[every, last]
        position[every, last + 1] += 1
        last = last + 1
        ids[every, last] = picked.to(ids.dtype)
    return [text.tokenizer.decode(t) for t in tokens]


def reasoning(network, count, seed, vae=None, limit=90):
    """The two turns of reasoning: share of parsed ratings, accuracy on true and false relations, examples, length."""
    rng = random.Random(HELD_OUT + seed)
    scenes, texts = [], []
    while len(scenes) < count:
        scene = world.sample(rng)
        near = [s for s in questions.SHIPPED_RELATIONS
                if questions.CATALOGUE[s].hazards & {o.cls for o in scene.visible()}]
        if near:
            scenes.append(scene)
            texts.append(rng.choice(near))
    features = network.pictures(draw(network, scenes, seed, True, vae))
    first = [questions.fill(questions.TEMPLATES["reasoning"], t) for t in texts]
    thoughts = greedy(network, features, [[(q, None)] for q in first], limit)
    second = [[(q, a), (questions.TEMPLATES["rating"], None)] for q, a in zip(first, thoughts)]
    answers, right, parsed = greedy(network, features, second, limit), {True: [], False: []}, 0
    for scene, text, answer in zip(scenes, texts, answers):
        true = questions.truth(scene, CATALOGUE[text])
        try:
            rating = json.loads(answer)["rating"]
            parsed += 1
        except (ValueError, KeyError, TypeError):
            rating = None
        right[true].append(rating == ("Yes" if true else "No"))
    share = lambda r: float(np.mean(r)) if r else 0.0  # noqa: E731
    return {"parsed": parsed / count, "accuracy_true": share(right[True]), "accuracy_false": share(right[False]),
            "tokens": float(np.mean([len(network.text.encode(t)) for t in thoughts])),
            "examples": [list(e) for e in zip(texts, thoughts, answers)][:6]}


def policies_table(network, count, seed, vae=None):
    """Balanced accuracy at 0.5 of the questions about fitness, a rule and a whole constitution, drawn for each scene.

    `scene`: whether the answers about fitness say that the scene constitution is violated, which they should not know.
    `whole` has as many rules as lists in training, `whole_12` twelve, which training hardly ever has.
    """
    rng = random.Random(HELD_OUT + seed)
    scenes = [world.sample(rng, hard=0.35) for _ in range(count)]
    images, out = draw(network, scenes, seed, True, vae), {}
    for form in ("public", "rule", "whole", "whole_12"):
        if form == "whole_12":
            asked_of = [questions.about_policy(s, rng, "whole", 12)[0] for s in scenes]
        else:
            asked_of = [questions.conversation(s, rng, form)[0] for s in scenes]
        if form == "public":
            asked_of = [(questions.PUBLIC[0], questions._yes_no(questions.unfit(s))) for s in scenes]
        said = []
        for at in range(0, count, BATCH):
            builders = []
            for question, _ in asked_of[at:at + BATCH]:
                builders.append(RowBuilder(network.text, LENGTH))
                builders[-1].add([(question, None)])
            rows, *_ = stack(builders, LENGTH, 0)
            ends = torch.tensor([b.ends[-1] for b in builders], device=network.device)
            every = torch.arange(len(builders), device=network.device)
            states = network.states(network.pictures(images[at:at + BATCH]), network.rows(rows))[every, ends]
            probable = network.logits(states).float().softmax(-1)
            yes, no = (probable[:, ids].sum(1) for ids in (network.text.yes, network.text.no))
            said += (yes > no).tolist()
        out[form] = _balanced(said, [answer == "Yes" for _, answer in asked_of])
        if form == "public":
            out["public_of_scene"] = _balanced(said, [bool(world.violations(s)) for s in scenes])
    return out


def _balanced(said, true):
    said, true = np.asarray(said, bool), np.asarray(true, bool)
    return {"true": float(said[true].mean()), "false": float((~said[~true]).mean()), "share": float(true.mean())}


@torch.no_grad()
def evaluate(network, scale=1.0, vae=None):
    """All tables; `scale` shrinks the sets."""
    size = lambda n: max(8, int(n * scale))  # noqa: E731
    rng = random.Random(HELD_OUT + 5)
    own = [world.sample(rng, wild=0.0) for _ in range(size(1500))]
    foreign = [world.sample(rng, wild=1.0) for _ in range(size(1500))]
    removed = [scene_of(rng, erased=1.0) for _ in range(size(600))]
    return {
        "statements": statements_table(network, size(1500), 0.35, False, 1),
        "statements_corrupted": statements_table(network, size(1500), 0.35, True, 2, vae),
        "binding": binding(network, size(1200), 3, vae),
        "rules": rules_table(network, own, draw(network, own, 4, False)),
        "rules_corrupted": rules_table(network, foreign, draw(network, foreign, 5, True, vae)),
        "rules_region_removed": rules_table(network, removed, draw(network, removed, 6, False)),
        "policies": policies_table(network, size(2000), 8, vae),
        "reasoning": reasoning(network, size(256), 7, vae, 90 if scale >= 0.1 else 6),
    }


def table(metrics):
    """The tables as text."""
    lines = []
    for name in ("statements", "statements_corrupted"):
        for kind, row in metrics[name].items():
            lines.append(f"{name:21} {kind:9} true {row['accuracy_true']:.3f}  false {row['accuracy_false']:.3f}  "
                         f"AUC {row['auc']:.4f}  no image {row['without_image_true']:.2f} / "
                         f"{row['without_image_false']:.2f}  n {row['count']}")
    lines.append("binding (corrupted)   accuracy {accuracy:.3f}  scenes all right {scenes_all_right:.3f}".format(
        **metrics["binding"]))
    for name in ("rules", "rules_corrupted", "rules_region_removed"):
        row = metrics[name]
        lines.append(f"{name:21} image F1 {row['image_f1']:.3f}  rule F1 {row['rule_f1']:.3f}  flawless "
                     f"{row['flawless']:.3f}  undecided/image {row['undecided_per_image']:.2f}  {row['by_rule']}")
    for name, row in metrics["policies"].items():
        lines.append(f"{name:21} true {row['true']:.3f}  false {row['false']:.3f}  share of true {row['share']:.2f}")
    row = metrics["reasoning"]
    lines.append(f"reasoning (corrupted) true {row['accuracy_true']:.3f}  false {row['accuracy_false']:.3f}  parsed "
                 f"{row['parsed']:.3f}  tokens {row['tokens']:.0f}")
    lines += [f"  {text} | {thought} | {answer}" for text, thought, answer in row["examples"]]
    return "\n".join(lines)
