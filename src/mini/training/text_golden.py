"""Writes what Hugging Face transformers makes of the embedded text model, for the compiler's tests.

    python text_golden.py ../suite/text ../../compiler/tests/scene_golden.json

A case has the prompt, the tokens of the conversation, every 16th logit of the first answer token, and the greedy answer.
Made with Python 3.11, torch 2.11.0 (CPU, f32), transformers 5.17.0.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

import text_data as td

CASES = [
    ("objectiveness", "No kids with beer, please - we're a SCHOOL!"),
    ("objectiveness", "The image should not show a person holding a weapon."),
    ("revise", "No dangerous things near kids."),
    ("revise", "Nobody but the police may carry guns \u2013 12 caf\u00e9s complained"),
    ("preconditions", "The image should not show a skull or a coffin."),
    ("preconditions", "The image should not show a person or an animal whose body is on fire, unless a candle is visible."),
    ("central", "a police officer is holding a gun"),
    ("central", "the scene is on a beach"),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    model = LlamaForCausalLM.from_pretrained(args.folder, dtype=torch.float32).eval()
    cases = []
    for step, text in CASES:
        prompt = td.asked(step, text)
        asked = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True,
                                              return_tensors="pt", return_dict=True)
        with torch.no_grad():
            logits = model(**asked).logits[0, -1]
            whole = model.generate(**asked, max_new_tokens=160, do_sample=False)[0]
        tokens = asked["input_ids"][0].tolist()
        answer = tokenizer.decode(whole[len(tokens):], skip_special_tokens=True)
        cases.append({"prompt": prompt, "tokens": tokens, "logits": [round(x, 5) for x in logits[::16].tolist()],
                      "answer": answer})
    args.out.write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
