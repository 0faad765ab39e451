"""A Qwen2-VL checkpoint as the judge, used the way transformers documents it: a conversation in, logits out."""

import common
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor


def turn(role, text, picture=False):
    """One turn of a conversation; a picture comes before the text."""
    image = [{"type": "image"}] if picture else []
    return {"role": role, "content": [*image, {"type": "text", "text": text}]}


class Judge:
    """The model, its processor, and which of its tokens say Yes and No."""

    def __init__(self, folder, device="cpu", dtype="float32"):
        self.processor = AutoProcessor.from_pretrained(folder)
        self.tokenizer = self.processor.tokenizer
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, dtype))
        self.model = model.to(device).eval()
        self.yes = common.spellings(self.tokenizer, "yes")
        self.no = common.spellings(self.tokenizer, "no")

    def render(self, messages, answer_start=""):
        """The text of a conversation up to where the model speaks; its answer begins with `answer_start`."""
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return text + answer_start

    def inputs(self, texts, pictures, **options):
        """What the model takes for these texts, about these pictures or about none."""
        encoded = self.processor(text=texts, images=pictures or None, return_tensors="pt", **options)
        return encoded.to(self.model.device)

    def score(self, text, picture=None):
        """`p(Yes) / (p(Yes) + p(No))` at the token after `text`. One forward pass."""
        inputs = self.inputs([text], [picture] if picture else None)
        logits = self.model(**inputs, use_cache=False, logits_to_keep=1).logits
        return self.ratios(logits[:, -1])[0]

    def ratios(self, logits):
        """`p(Yes) / (p(Yes) + p(No))` for each row of logits, each summed over every spelling."""
        probabilities = logits.double().softmax(-1)
        yes = probabilities[:, self.yes].sum(-1)
        no = probabilities[:, self.no].sum(-1)
        ratios = (yes / (yes + no)).tolist()
        if any(ratio != ratio for ratio in ratios):
            raise ValueError("expected a probability of Yes or No, got none")
        return ratios

    def answer(self, text, picture, max_tokens):
        """The model's answer, decoded greedily, and its number of tokens."""
        inputs = self.inputs([text], [picture])
        ids = self.model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)
        new = ids[0, inputs["input_ids"].shape[1] :]
        return self.tokenizer.decode(new, skip_special_tokens=True).strip(), len(new)
