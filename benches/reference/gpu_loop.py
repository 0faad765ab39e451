"""What a GPU reaches, and what a Qwen2-VL judge costs there the way transformers documents it: one query per forward
pass, answers one after the other.

    python gpu_loop.py INPUT OUTPUT

INPUT is a JSON object:
    judge       folder of the checkpoint, in Hugging Face layout
    beginning   what every question begins with, after the picture
    statements  what each question goes on with
    reasoning   a question that is answered freely
    tokens      length of that answer
    picture     path of the picture file
    exact       how many of the statements are scored in float32 too

OUTPUT is a JSON object: `device`; `tflops`, the rate of a large bf16 matrix product; `tbytes`, terabytes a second read
and written by a large copy; `query_ms`, milliseconds of each statement, from a decoded picture in memory to the score;
`token_ms`, milliseconds of one generated token; `scores`, one for each statement; `exact`, the first of them in
float32; `versions`.
"""

import statistics
import sys
import time

import common
import torch
from judge import Judge, turn

SIZE = 8192
COPIED = 1 << 32


def seconds(work, repeat):
    """Median seconds of one run of `work` on the GPU."""
    times = []
    for _ in range(repeat + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times[3:])


def ceilings():
    """Operations and bytes a second, in units of 10^12: what no program on this GPU gets past."""
    a, b = (torch.randn(SIZE, SIZE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(a)
    tflops = 2 * SIZE**3 / seconds(lambda: torch.matmul(a, b, out=product), 20) / 1e12
    source = torch.randn(COPIED // 4, device="cuda")
    target = torch.empty_like(source)
    tbytes = 2 * COPIED / seconds(lambda: target.copy_(source), 20) / 1e12
    return {"tflops": tflops, "tbytes": tbytes}


class Timed(Judge):
    """A judge whose answers are waited for."""

    def timed(self, work):
        """What `work` returns, and its milliseconds."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        result = work()
        torch.cuda.synchronize()
        return result, common.milliseconds_since(start)

    def token_ms(self, text, picture, tokens):
        """Milliseconds of one generated token."""
        inputs = self.inputs([text], [picture])

        def generate(count):
            limits = {"max_new_tokens": count, "min_new_tokens": count}
            return self.timed(lambda: self.model.generate(**inputs, do_sample=False, **limits))[1]

        generate(4)
        few, many = generate(2), generate(tokens)
        return (many - few) / (tokens - 2)


@torch.inference_mode()
def main(input_path, output_path):
    """Measures what INPUT asks for."""
    task = common.read_input(input_path)
    output = {"device": torch.cuda.get_device_name()} | ceilings()
    judge = Timed(task["judge"], "cuda", "bfloat16")
    picture = common.load_pictures([task["picture"]])[0]
    questions = [task["beginning"] + statement for statement in task["statements"]]
    texts = [judge.render([turn("user", question, picture=True)]) for question in questions]
    for text in texts[:3]:
        judge.score(text, picture)
    answers = [judge.timed(lambda text=text: judge.score(text, picture)) for text in texts]
    output["scores"] = [score for score, _ in answers]
    output["query_ms"] = [milliseconds for _, milliseconds in answers]
    reasoning = judge.render([turn("user", task["reasoning"], picture=True)])
    output["token_ms"] = judge.token_ms(reasoning, picture, task["tokens"])
    judge.model.float()
    output["exact"] = [judge.score(text, picture) for text in texts[: task["exact"]]]
    output["versions"] = common.versions("torch", "transformers")
    common.write_output(output_path, output)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} INPUT OUTPUT")
    main(*sys.argv[1:])
