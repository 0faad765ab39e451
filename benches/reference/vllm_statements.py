"""Asks a Qwen2-VL judge every statement about each picture through vLLM on the CPU, in this process, and times it.

    python vllm_statements.py INPUT OUTPUT

Prefix caching is on, in the smallest blocks that vLLM has on the CPU (32 tokens): with its default of 128 the picture and
the common beginning of a question would not fill one, and nothing would be shared. Every question about a picture is
handed over at once, so that vLLM batches as it can, and it reads no more logits than those of Yes and No. Asking one
question first, compiling the model and preloading Intel's OpenMP were tried and were not faster. Before each timed round
the caches are emptied: every picture is new when it is judged.

See `statements.py` for INPUT and OUTPUT; `method` is `vllm`. INPUT may also have `block_size`, to show what the default
costs.
"""

import os
import sys
import time

import common

# In this process and without what a server needs; memory for the cache of keys and values in GiB.
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"}
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

import torch  # noqa: E402 (vLLM reads the environment when it is imported)
from judge import turn  # noqa: E402
from vllm import LLM, SamplingParams  # noqa: E402


class Engine:
    """vLLM with the checkpoint, and the questions as it wants them."""

    def __init__(self, task):
        self.llm = LLM(
            model=task["judge"],
            dtype="float32",
            enable_prefix_caching=True,
            block_size=task.get("block_size", 32),
            enforce_eager=True,
            max_model_len=512,
            max_num_seqs=512,
            max_num_batched_tokens=8192,
            limit_mm_per_prompt={"image": 1, "video": 0},
            disable_log_stats=True,
        )
        tokenizer = self.llm.get_tokenizer()
        self.yes = common.spellings(tokenizer, "yes")
        self.no = common.spellings(tokenizer, "no")
        self.sampling = SamplingParams(
            temperature=0.0, max_tokens=1, logprob_token_ids=self.yes + self.no, detokenize=False
        )
        self.texts = [
            tokenizer.apply_chat_template(
                [turn("user", task["beginning"] + statement, picture=True)], add_generation_prompt=True, tokenize=False
            )
            for statement in task["statements"]
        ]

    def forget(self):
        """Empties the caches."""
        self.llm.reset_prefix_cache()
        self.llm.reset_mm_cache()
        self.llm.llm_engine.reset_encoder_cache()

    def ask(self, picture):
        """The score of every question about `picture`."""
        prompts = [{"prompt": text, "multi_modal_data": {"image": picture}} for text in self.texts]
        outputs = self.llm.generate(prompts, self.sampling, use_tqdm=False)
        return [self.ratio(output.outputs[0].logprobs[0]) for output in outputs]

    def ratio(self, logprobs):
        """`p(Yes) / (p(Yes) + p(No))`, each summed over every spelling."""
        yes, no = (
            torch.tensor([logprobs[token].logprob for token in ids], dtype=torch.float64).exp().sum()
            for ids in (self.yes, self.no)
        )
        return (yes / (yes + no)).item()


def main(input_path, output_path):
    """Runs one input file."""
    task = common.read_input(input_path)
    engine = Engine(task)
    pictures = common.load_pictures(task["pictures"])
    engine.ask(pictures[0])
    times, scores = [], []
    for picture in pictures:
        times.append([])
        for _ in range(task.get("repeat", 1)):
            engine.forget()
            start = time.perf_counter()
            answers = engine.ask(picture)
            times[-1].append(common.milliseconds_since(start))
        scores.append(answers)
        common.progress(f"vllm: {picture.filename} {min(times[-1]):.1f} ms")
    common.write_output(
        output_path,
        {
            "method": "vllm",
            "ms": times,
            "scores": scores,
            "threads": torch.get_num_threads(),
            "versions": common.versions("vllm-cpu", "torch", "transformers"),
        },
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} INPUT OUTPUT")
    main(*sys.argv[1:])
