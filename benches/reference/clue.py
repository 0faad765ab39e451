"""CLUE, from the paper's Algorithm 1 (Wang et al., arXiv 2501.00192), over Hugging Face transformers.

    python clue.py INPUT OUTPUT

This is what somebody who knows the library would write from the paper, to compare with: one rule after the other, one
precondition after the other, one query per forward pass. What costs nothing to avoid is avoided: what depends on no
picture is computed once (rule embeddings, M(None,c)), a statement that several rules share is asked once a picture,
only the last token's logits are computed, the second turn of the reasoning is scored instead of decoded. There is no
batching and no sharing of prefixes: that is what the comparison is about.

INPUT is a JSON object:
    suite                folder with the checkpoints `relevance` (CLIP), `detector` (OWLv2) and `judge` (Qwen2-VL)
    relevance_threshold  cosine from which a rule is relevant
    templates            texts of the prompts `statement`, `reasoning`, `rating`, with `{{ statement }}` in them
    rules                list of {id, text, preconditions, unless}; the latter two are chains: lists of preconditions,
                         each a list of {statement, central}, `central` being the words that the detector looks for
    thresholds           {alpha1, alpha2, beta, detection_confidence, small_object_area}
    options              {max_reasoning_tokens, min_crop_side}
    pictures             paths of the picture files

OUTPUT is a JSON object with `pictures`, one object for each: `path`, `verdict` (safe, unsafe), `violated` (ids),
`rules` (evidence), `ms` (from a decoded picture in memory to the verdict), `stages_ms`, `forwards` (passes of a model;
a decoded token is one); and `prepare_ms` (what was computed before the first picture), `threads`, `peak_rss_mb`,
`versions`. Loading the models and a first picture, judged once to warm up, are not timed.
"""

import sys
import time
from collections import Counter
from contextlib import contextmanager

import common
import regions
import torch
from judge import Judge, turn
from transformers import AutoProcessor, CLIPModel, Owlv2ForObjectDetection

RATING_START = '{"rating": "'


class Relevance:
    """CLIP: how near a picture and a rule are."""

    def __init__(self, folder):
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()

    def text(self, text):
        """The embedding of a rule, of length 1."""
        inputs = self.processor(text=[text], truncation=True, return_tensors="pt")
        return torch.nn.functional.normalize(self.model.get_text_features(**inputs).pooler_output[0], dim=0)

    def picture(self, picture):
        """The embedding of a picture, of length 1."""
        inputs = self.processor(images=picture, return_tensors="pt")
        return torch.nn.functional.normalize(self.model.get_image_features(**inputs).pooler_output[0], dim=0)


class Detector:
    """OWLv2: where in a picture the objects are that words name."""

    def __init__(self, folder):
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = Owlv2ForObjectDetection.from_pretrained(folder, dtype=torch.float32).eval()

    def best(self, picture, words, confidence):
        """The most confident box above `confidence` for each word that was found.

        The post-processing of transformers gives each patch to one word only, so that one word can hide another; CLUE
        asks of each central object on its own, so the scores are read for each word here.
        """
        inputs = self.processor(text=[words], images=picture, return_tensors="pt")
        output = self.model(**inputs)
        scores = output.logits[0].sigmoid().T.tolist()
        boxes = [regions.to_pixels(picture, box) for box in output.pred_boxes[0].tolist()]
        found = {}
        for word, scores_of_word in zip(words, scores):
            candidates = [(score, box) for score, box in zip(scores_of_word, boxes) if box]
            score, box = max(candidates, key=lambda candidate: candidate[0], default=(0.0, None))
            if score > confidence:
                found[word] = {"word": word, "confidence": score, "box": box}
        return found


class Clue:
    """The method with its models and rules; judges one picture after the other."""

    def __init__(self, task):
        self.rules = task["rules"]
        self.thresholds = task["thresholds"]
        self.options = task["options"]
        self.relevance_threshold = task["relevance_threshold"]
        self.templates = task["templates"]
        suite = task["suite"]
        self.relevance = Relevance(f"{suite}/relevance")
        self.detector = Detector(f"{suite}/detector")
        self.judge = Judge(f"{suite}/judge")

    def prepare(self):
        """What depends on no picture: embeddings of the rules, M(None,c) of every statement."""
        self.embeddings = [self.relevance.text(rule["text"]) for rule in self.rules]
        self.priors = {}
        for rule in self.rules:
            for statement in statements_of(rule):
                text = statement["statement"]
                if text not in self.priors:
                    self.priors[text] = self.judge.score(self.question("statement", text, picture=False))

    def prompt(self, template, statement):
        """A template with the statement in it."""
        return self.templates[template].replace("{{ statement }}", statement)

    def question(self, template, statement, picture=True):
        """The conversation of one question, with a picture or without."""
        return self.judge.render([turn("user", self.prompt(template, statement), picture)])


def statements_of(rule):
    """All statements of a rule, those of its exception included."""
    return [statement for chain in ("preconditions", "unless") for any_of in rule[chain] for statement in any_of]


class Inspection:
    """One picture on its way through Algorithm 1."""

    def __init__(self, clue, picture):
        self.clue = clue
        self.picture = picture
        self.milliseconds = Counter()
        self.forwards = Counter()
        self.found = {}
        # Answers by view and statement: rules share statements, and a picture is asked each of them once.
        self.scores = {}
        self.ratings = {}

    @contextmanager
    def stage(self, name, forwards=0):
        """Times a stage and counts its forward passes."""
        start = time.perf_counter()
        yield
        self.milliseconds[name] += common.milliseconds_since(start)
        self.forwards[name] += forwards

    def run(self):
        """The verdict, and what it rests on."""
        start = time.perf_counter()
        cosines = self.scan()
        relevant = [rule for rule, cosine in cosines if cosine >= self.clue.relevance_threshold]
        words = sorted({word for rule in relevant for s in statements_of(rule) for word in s["central"]})
        if words:
            with self.stage("detection", 1):
                confidence = self.clue.thresholds["detection_confidence"]
                self.found = self.clue.detector.best(self.picture, words, confidence)
        rules = [self.rule(rule, cosine) for rule, cosine in cosines]
        violated = [rule["id"] for rule in rules if rule["outcome"] == "violated"]
        return {
            "path": self.picture.filename,
            "verdict": "unsafe" if violated else "safe",
            "violated": violated,
            "rules": rules,
            "ms": common.milliseconds_since(start),
            "stages_ms": dict(self.milliseconds),
            "forwards": dict(self.forwards),
        }

    def scan(self):
        """Each rule with its cosine to the picture (section 3.2): the largest over the picture's views."""
        views = regions.views(self.picture)
        with self.stage("relevance", len(views)):
            embeddings = torch.stack([self.clue.relevance.picture(view) for view in views])
            return [
                (rule, (embeddings @ embedding).max().item())
                for rule, embedding in zip(self.clue.rules, self.clue.embeddings)
            ]

    def rule(self, rule, cosine):
        """One rule: violated if its chain holds and its exception does not."""
        statements = []
        if cosine < self.clue.relevance_threshold:
            outcome = "irrelevant"
        elif not self.chain(rule["preconditions"], statements):
            outcome = "not_violated"
        elif rule["unless"] and self.chain(rule["unless"], statements):
            outcome = "excepted"
        else:
            outcome = "violated"
        return {"id": rule["id"], "outcome": outcome, "relevance": cosine, "statements": statements}

    def chain(self, preconditions, evidence):
        """Whether every precondition holds, up to the first that does not."""
        return all(self.precondition(any_of, evidence) for any_of in preconditions)

    def precondition(self, any_of, evidence):
        """Whether any of a precondition's statements holds. The cheap lines come first for all of them, so that no
        reasoning is spent on one statement while another holds already."""
        undecided = []
        for statement in any_of:
            record = self.first_lines(statement)
            evidence.append(record)
            if record["holds"]:
                return True
            if record["holds"] is None:
                undecided.append((statement, record))
        for line in (self.region_line, self.reasoning_line):
            for statement, record in undecided:
                line(statement, record)
                if record["holds"]:
                    return True
        return False

    def first_lines(self, statement):
        """The lines with a1 and a2 (section 3.4, token-probability based judgement), of the crop of small objects."""
        text = statement["statement"]
        prior = self.clue.priors[text]
        boxes = [self.found[word] for word in statement["central"] if word in self.found]
        record = {"statement": text, "prior": prior, "boxes": boxes, "line": None, "holds": None}
        record["crop"] = self.crop_box(statement, boxes)
        record["score"] = self.score("statements", text, ("crop", record["crop"]))
        difference = record["score"] - prior
        if difference < -self.clue.thresholds["alpha1"] * prior:
            record |= {"line": "below_alpha1", "holds": False}
        elif difference > self.clue.thresholds["alpha2"] * (1 - prior):
            record |= {"line": "above_alpha2", "holds": True}
        return record

    def region_line(self, statement, record):
        """The line with b: holds if the score falls by more than b when the central objects are removed."""
        if not record["boxes"]:
            return
        text = statement["statement"]
        boxes = tuple(found["box"] for found in record["boxes"])
        whole = self.score("regions", text, ("crop", None))
        record["score_removed"] = self.score("regions", text, ("removed", boxes))
        if whole - record["score_removed"] > self.clue.thresholds["beta"]:
            record |= {"line": "region", "holds": True}

    def reasoning_line(self, statement, record):
        """The last line (section 3.5): a chain of thought, then its rating, read from the probability of the next
        token."""
        text = statement["statement"]
        view = ("crop", record["crop"])
        if (view, text) not in self.ratings:
            self.ratings[view, text] = self.reason(text, self.view(view))
        record["thought"], record["rating"] = self.ratings[view, text]
        record |= {"line": "reasoning", "holds": record["rating"] >= 0.5}

    def reason(self, text, picture):
        """The thought and the probability that its rating is Yes."""
        clue = self.clue
        with self.stage("reasoning"):
            limit = clue.options["max_reasoning_tokens"]
            thought, tokens = clue.judge.answer(clue.question("reasoning", text), picture, limit)
            self.forwards["reasoning"] += tokens
        if not thought:
            raise ValueError(f"expected a chain of thought about {text!r}, got none")
        with self.stage("rating", 1):
            messages = [
                turn("user", clue.prompt("reasoning", text), picture=True),
                turn("assistant", thought),
                turn("user", clue.prompt("rating", text)),
            ]
            return thought, clue.judge.score(clue.judge.render(messages, RATING_START), picture)

    def crop_box(self, statement, boxes):
        """The box around all central objects, if each was found and together they are small; else none."""
        if not boxes or len(boxes) < len(statement["central"]):
            return None
        around = regions.around([found["box"] for found in boxes])
        small = regions.share(self.picture, around) < self.clue.thresholds["small_object_area"]
        return around if small else None

    def view(self, key):
        """The picture that a question is about."""
        kind, boxes = key
        if kind == "removed":
            return regions.removed(self.picture, boxes)
        if boxes is None:
            return self.picture
        return regions.crop(self.picture, boxes, self.clue.options["min_crop_side"])

    def score(self, stage, text, view):
        """M(x,c), asked once of each view."""
        if (view, text) not in self.scores:
            with self.stage(stage, 1):
                question = self.clue.question("statement", text)
                self.scores[view, text] = self.clue.judge.score(question, self.view(view))
        return self.scores[view, text]


@torch.inference_mode()
def main(input_path, output_path):
    """Judges every picture of one input file."""
    torch.set_num_threads(common.cores())
    task = common.read_input(input_path)
    clue = Clue(task)
    start = time.perf_counter()
    clue.prepare()
    prepare_ms = common.milliseconds_since(start)
    pictures = common.load_pictures(task["pictures"])
    Inspection(clue, pictures[0]).run()
    reports = []
    for path, picture in zip(task["pictures"], pictures):
        reports.append(Inspection(clue, picture).run() | {"path": path})
        common.progress(f"clue: {picture.filename} {reports[-1]['verdict']} {reports[-1]['ms']:.0f} ms")
    common.write_output(
        output_path,
        {
            "pictures": reports,
            "prepare_ms": prepare_ms,
            "threads": torch.get_num_threads(),
            "versions": common.versions("torch", "torchvision", "transformers", "pillow"),
        },
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} INPUT OUTPUT")
    main(*sys.argv[1:])
