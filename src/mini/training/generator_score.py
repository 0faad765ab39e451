"""How good the generator is: held-out prompts, drawn and looked at by `classifier.py`, and a contact sheet."""

import json
import random
import re
import time
from pathlib import Path

import torch

import classifier
import generator
import render
import world
from generator_scenes import SIDE, draw_scene, encode, paint

# Prompts of the sheet, beside random captions: what the demonstration asks for.
SHOWN = (
    "a man on fire", "a woman holding a knife", "a dog with a bloody injury", "a boy and a beer", "a cat on the grass",
    "an old man smoking a cigarette", "a girl and a cake", "a horse on fire at night", "a police officer holding a gun",
    "a man lying on a bed in a room", "a woman taking a bath", "a man drinking a glass of wine",
    "a dog and a ball on a beach",
    "a rabbit and a flower on the grass", "a skull and a candle at night", "an old woman and a bicycle on a street",
    "a man and a knife on a street", "a woman taking a pill", "a house and a tree on the grass",
    "a pig holding a sword",
    "a man gambling with dice", "a boy and a ball in a room", "a picture of a cow and fire",
    "a photo of a baby and a bird",
)


@torch.no_grad()
def draw(trainer, vae, tokenizer, prompts, guidance, steps=20, seed=1):
    """Pictures (B, 3, 128, 128) in 0..1 of the prompts, drawn in f32 (TF32 on a GPU) as the pipeline does."""
    from diffusers import DDIMScheduler

    device, out = trainer.device, []
    random_numbers = torch.Generator(device=device).manual_seed(seed)
    for i in range(0, len(prompts), 200):
        part = prompts[i:i + 200]
        ids = torch.cat([encode(tokenizer, part), encode(tokenizer, [""]).expand(len(part), -1)])
        hidden = trainer.text(input_ids=ids.to(device)).last_hidden_state
        scheduler = DDIMScheduler(**generator.SAMPLER)
        scheduler.set_timesteps(steps)
        latents = torch.randn(len(part), 4, generator.LATENT, generator.LATENT, device=device, generator=random_numbers)
        for step in scheduler.timesteps:
            guess = trainer.unet(torch.cat([latents, latents]), step.to(device), hidden, return_dict=False)[0]
            with_text, without = guess.chunk(2)
            latents = scheduler.step(without + guidance * (with_text - without), step, latents).prev_sample
        out += [vae.decode(z / generator.SCALE).sample / 2 + 0.5 for z in latents.split(64)]
    return torch.cat(out).clamp(0, 1)


def judge(score, threshold, scenes):
    """Shares of pictures and objects recognised, of pairs drawn as asked, and the hits of each class."""
    truth = classifier.labels(scenes).to(score.device) > 0
    yes = score > threshold
    seen, named = yes[:, :classifier.CLASSES], truth[:, :classifier.CLASSES]
    whole = (seen | ~named).all(1)
    share = lambda t: round(t.float().mean().item(), 4) if t.numel() else None  # noqa: E731
    number = torch.tensor([len(s.objects) for s in scenes], device=score.device)
    apart = [(row, classifier.CLASSES + at) for row, scene in enumerate(scenes) for pair, at in render.BOND.items()
             if {o.category for o in scene.objects} >= set(pair) and not truth[row, classifier.CLASSES + at]]
    classes = {name: share(seen[named[:, c], c]) for c, name in enumerate(world.NAMES) if named[:, c].any()}
    return {"pictures": share(whole), "by_objects": {str(n): share(whole[number == n]) for n in (1, 2, 3)},
            "objects": share(seen[named]), "false": share(seen[~named]),
            "touching": share(yes[:, classifier.CLASSES:][truth[:, classifier.CLASSES:]]),
            "apart_called_touching": share(torch.stack([yes[i, j] for i, j in apart])) if apart else None,
            "classes": dict(sorted(classes.items(), key=lambda item: item[1]))}


def sheet(pictures, prompts, path):
    """Pictures with their prompts under them, eight in a row, and the prompts as a text file beside."""
    from PIL import Image, ImageDraw

    wide, high = 200, SIDE + 44
    page = Image.new("RGB", (8 * wide, -(-len(prompts) // 8) * high), "white")
    pen = ImageDraw.Draw(page)
    for n, (picture, prompt) in enumerate(zip(pictures, prompts)):
        left, top = n % 8 * wide, n // 8 * high
        page.paste(Image.fromarray((picture.permute(1, 2, 0) * 255).round().byte().cpu().numpy()), (left + 36, top + 2))
        for line, words in enumerate(re.findall(r".{1,32}(?:\s|$)", prompt)[:3]):
            pen.text((left + 4, top + SIDE + 4 + 13 * line), words, fill="black")
    page.save(path)


def evaluate(trainer, vae, tokenizer, judge_file, args, start, guidances=(4.0, 2.5, 6.0, 3.2, 5.0, 8.0)):
    """Draws and scores held-out prompts, within `args.seconds` of `start`; writes metrics.json and sheet.png.

    Returns what it writes to metrics.json. `guidances` are tried in this order, as many as there is time for.
    """
    device, folder, count = trainer.device, Path(args.out) / "generator", 4 if args.smoke else 400
    model = classifier.load(judge_file, device)
    rng = random.Random(20261122)
    scenes = [draw_scene(rng) for _ in range(20 * count)]
    # As many scenes of one, of two and of three objects.
    some = [s for n in (1, 2, 3) for s in [s for s in scenes if len(s.objects) == n][:-(-count // 3)]]
    prompts = [world.caption(s, rng) for s in some]
    ceiling = classifier.calibrate(model, device, 64 if args.smoke else 1500, draw_scene=draw_scene, painter=paint)
    threshold, table = ceiling.pop("threshold"), {}
    for guidance in guidances[:1] if args.smoke else guidances:
        if table and time.time() - start > args.seconds - 12:
            break
        pictures = draw(trainer, vae, tokenizer, prompts, guidance, steps=2 if args.smoke else 20)
        table[guidance] = judge(classifier.scores(model, pictures), threshold, some)
        print(f"guidance {guidance}: " + str({k: v for k, v in table[guidance].items() if k != "classes"}), flush=True)
    best = max(table, key=lambda g: table[g]["pictures"])
    result = {"prompts": len(prompts), "steps": 20, "best_guidance": best, "score": table[best]["pictures"],
              "classifier_on_rendered_scenes": ceiling, "by_guidance": {str(g): t for g, t in table.items()},
              "unet_steps": trainer.step, "batch": args.batch}
    (folder / "metrics.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    shown = [*SHOWN, *random.Random(3).sample(prompts, min(len(prompts), 24))]
    pictures = draw(trainer, vae, tokenizer, shown, best, steps=2 if args.smoke else 20, seed=7)
    sheet(pictures, shown, folder / "sheet.png")
    print(f"classifier on rendered scenes (ceiling): {ceiling}\nclasses drawn worst: "
          f"{dict(list(table[best]['classes'].items())[:12])}\n"
          f"generator: {result['score']:.1%} of {len(prompts)} prompts recognised at guidance {best} "
          f"(bar 80 %), at {time.time() - start:.0f} s", flush=True)
    return result
