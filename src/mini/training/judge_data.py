"""Batches for the judge, made in worker processes: scenes, and for each a row full of questions."""

import os
import random

import torch

import questions
import world
from judge_model import RowBuilder, stack
from render import pack

LENGTH = 512
# What a row holds besides statements about its picture, and how often. Lists of rules are as rare as they are where people
# ask about pictures, not as often as it takes to read them well: one row in 45, every form among them.
EXTRAS = {None: 0.368, "blind": 0.13, "think": 0.27, "describe": 0.05, "rule": 0.05, "rule_think": 0.02,
          "blind_rule": 0.02, "public": 0.05, "public_think": 0.02, "whole": 0.005, "which": 0.003, "whole_think": 0.006,
          "guard": 0.005, "policy_word": 0.003}
# Weights of the tokens of answers that are neither Yes nor No, where they differ from the usual (RowBuilder.add).
WEIGHTS = {"guard": (1.0, 4.0, 1.0), "policy_word": (1.0, 4.0, 4.0)}
BLIND_STATEMENTS = 7


def scene_of(rng, hard=0.5, wild=0.65, erased=0.15):
    """A scene as the judge trains on: often confusing, sometimes with a region removed."""
    scene = world.sample(rng, hard=hard, wild=wild)
    if rng.random() < erased:
        for _ in range(1 if rng.random() < 0.7 else 2):
            scene = world.erase(scene, rng.randrange(len(scene.objects)), rng) or scene
    return scene


def row(rng, text, scene):
    """A row of questions about the scene; those without a picture are about ordinary scenes."""
    builder = RowBuilder(text, LENGTH)
    extra = rng.choices(list(EXTRAS), list(EXTRAS.values()))[0]
    if extra == "blind":
        for _ in range(BLIND_STATEMENTS):
            other = world.sample(rng, hard=0.0)
            builder.add(questions.conversation(other, rng, "statement"), blind=True)
    elif extra == "blind_rule":
        for _ in range(BLIND_STATEMENTS):
            builder.add(questions.conversation(world.sample(rng, hard=0.0), rng, "rule"), blind=True)
    elif extra:
        for _ in range({"rule": 3, "public": 3}.get(extra, 1)):
            turns = questions.conversation(scene, rng, extra)
            builder.add(turns, **({"weights": WEIGHTS[extra]} if extra in WEIGHTS else {}))
    misses = 0
    asked = set()
    while misses < 8 and builder.room() > 12:
        turns = questions.conversation(scene, rng, "statement")
        if turns[0][0] in asked or not builder.add(turns):
            misses += 1
        asked.add(turns[0][0])
    return builder


def batch(rng, text, size):
    """(packed scenes, rows, flat label positions, targets, weights)."""
    scenes = [scene_of(rng) for _ in range(size)]
    return (pack(scenes), *stack([row(rng, text, s) for s in scenes], LENGTH, 0))


def work(queue, text, seed, size):
    """A worker process: puts batches for ever."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    rng = random.Random(seed)
    while True:
        queue.put(batch(rng, text, size))


def start(text, size, workers, seed):
    """Starts worker processes; (queue, processes). Call before the GPU is touched: workers are forked."""
    context = torch.multiprocessing.get_context("fork")
    queue = context.Queue(max(8, workers * 2))
    processes = [context.Process(target=work, args=(queue, text, seed * 1000 + i, size), daemon=True)
                 for i in range(workers)]
    for process in processes:
        process.start()
    return queue, processes
