"""Asks a Qwen2-VL judge every statement about each picture, in one of three ways, and times it.

    python statements.py METHOD INPUT OUTPUT

METHOD
    loop    Hugging Face transformers as its documentation shows it: one query per forward pass.
    batch   The same, all queries about a picture in one padded batch.
    shared  Written by hand over the modules of transformers: the picture is encoded once, the common beginning is read
            once, and all endings follow in one forward pass, packed without padding, under an explicit mask.

INPUT is a JSON object:
    judge       folder of the checkpoint, in Hugging Face layout
    beginning   what every question begins with, after the picture
    statements  what each question goes on with; a question is `beginning + statement`, verbatim
    pictures    paths of the picture files
    repeat      how often each picture is asked about (default 1)

OUTPUT is a JSON object: `method`; `ms`, for each picture a list of the milliseconds of each repeat, from a decoded
picture in memory to all scores; `scores`, for each picture a list of p(Yes) / (p(Yes) + p(No)), one for each
statement; `threads`, `peak_rss_mb`, `versions`. Loading and a first picture, asked about once to warm up, are not
timed.
"""

import sys
import time

import common
import torch
from judge import Judge, turn
from transformers import DynamicCache


class Loop:
    """One query per forward pass."""

    def __init__(self, judge, questions):
        self.judge = judge
        self.texts = [judge.render([turn("user", question, picture=True)]) for question in questions]

    def ask(self, picture):
        """The score of every question about `picture`."""
        return [self.judge.score(text, picture) for text in self.texts]


class Batch(Loop):
    """All queries about a picture in one padded batch."""

    def ask(self, picture):
        # Padded at the left, every query ends in the last column.
        pictures = [picture] * len(self.texts)
        inputs = self.judge.inputs(self.texts, pictures, padding=True, padding_side="left")
        logits = self.judge.model(**inputs, use_cache=False, logits_to_keep=1).logits
        return self.judge.ratios(logits[:, -1])


class Shared(Loop):
    """Picture and common beginning once, all endings in one forward pass.

    The endings lie behind each other in one row. Each sees the beginning and itself, which the mask says, and counts
    its positions on from the beginning. Only the logits of Yes and No at the end of each are computed: the rest of the
    vocabulary cancels out of the ratio.
    """

    def __init__(self, judge, questions):
        super().__init__(judge, questions)
        rows = judge.tokenizer(self.texts)["input_ids"]
        # As much as all rows have in common, while each keeps something of its own.
        most = min(len(row) for row in rows) - 1
        shared = next((at for at in range(most) if len({row[at] for row in rows}) > 1), most)
        self.beginning = rows[0][:shared]
        endings = [row[shared:] for row in rows]
        lengths = torch.tensor([len(ending) for ending in endings])
        owner = torch.repeat_interleave(torch.arange(len(endings)), lengths)
        self.own = (owner[:, None] == owner[None, :]).tril()
        self.ids = torch.tensor([sum(endings, [])])
        self.offsets = torch.cat([torch.arange(length) for length in lengths])
        self.ends = lengths.cumsum(0) - 1
        self.answers = judge.model.lm_head.weight[judge.yes + judge.no].T.contiguous()

    def ask(self, picture):
        model = self.judge.model.model
        image_token = model.config.image_token_id
        pixels = self.judge.processor.image_processor(images=[picture], return_tensors="pt")
        grid = pixels["image_grid_thw"]
        features = model.visual(pixels["pixel_values"], grid_thw=grid).pooler_output

        at = self.beginning.index(image_token)
        ids = self.beginning[:at] + [image_token] * len(features) + self.beginning[at + 1 :]
        ids = torch.tensor([ids])
        positions, _ = model.get_rope_index(ids, (ids == image_token).int(), image_grid_thw=grid)
        text = model.language_model
        embeddings = text.embed_tokens(ids)
        embeddings[0, at : at + len(features)] = features
        cache = DynamicCache(config=model.config)
        text(inputs_embeds=embeddings, position_ids=positions, past_key_values=cache, use_cache=True)

        seen = self.own.new_ones(len(self.own), ids.shape[1])
        mask = torch.cat([seen, self.own], dim=1)[None, None]
        hidden = text(
            input_ids=self.ids,
            attention_mask={"full_attention": mask},
            position_ids=(positions.max() + 1 + self.offsets).expand(3, 1, -1),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        odds = (hidden[0, self.ends] @ self.answers).double().softmax(-1)
        return odds[:, : len(self.judge.yes)].sum(-1).tolist()


METHODS = {"loop": Loop, "batch": Batch, "shared": Shared}


@torch.inference_mode()
def main(method, input_path, output_path):
    """Runs one method on one input file."""
    torch.set_num_threads(common.cores())
    task = common.read_input(input_path)
    asker = METHODS[method](Judge(task["judge"]), [task["beginning"] + statement for statement in task["statements"]])
    pictures = common.load_pictures(task["pictures"])
    asker.ask(pictures[0])
    times, scores = [], []
    for picture in pictures:
        times.append([])
        for _ in range(task.get("repeat", 1)):
            start = time.perf_counter()
            answers = asker.ask(picture)
            times[-1].append(common.milliseconds_since(start))
        scores.append(answers)
        common.progress(f"{method}: {picture.filename} {min(times[-1]):.1f} ms")
    common.write_output(
        output_path,
        {
            "method": method,
            "ms": times,
            "scores": scores,
            "threads": torch.get_num_threads(),
            "versions": common.versions("torch", "torchvision", "transformers", "pillow"),
        },
    )


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in METHODS:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(METHODS)} INPUT OUTPUT")
    main(*sys.argv[1:])
