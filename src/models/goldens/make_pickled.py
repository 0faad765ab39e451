"""Makes checkpoints in PyTorch's own format in the folder `pickled` beside this script.

`awq` holds the weights of the golden folder `awq` in two shards with an index, as `save_pretrained` wrote them before
safetensors. `tensors` holds what state dictionaries may: all types that are read, matrices that are transposed, views
into others, shared, empty, of one number, and parameters; the same tensors, each in one row, in safetensors. The other
files are those that are refused: `legacy.bin` is what torch wrote before 1.6, `call.bin` would call `os.system`,
`nested.bin` holds a dictionary in the dictionary, `bool.bin` a type that is not read, `repeated.bin` a row that stands for
many.

    python make_pickled.py

Made with Python 3.11, torch 2.11.0 (CPU), safetensors 0.8.0.
"""

import collections
import json
import os
import pathlib

import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent / "pickled"


class Call:
    def __reduce__(self):
        return os.system, ("true",)


def sharded(folder):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = load_file(HERE.parent / "awq/model/model.safetensors")
    names = sorted(tensors)
    where = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        shard = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({name: tensors[name] for name in part}, folder / shard)
        where |= dict.fromkeys(part, shard)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1) + "\n")


def all_kinds():
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    tensors = collections.OrderedDict(
        f32=base, f16=torch.randn(3).half(), bf16=torch.randn(2, 2).bfloat16(), f64=torch.randn(2).double(),
        i64=torch.tensor([-1, 2**40]), i32=torch.tensor([[-(2**31), 2**31 - 1]], dtype=torch.int32),
        u8=torch.tensor([0, 255], dtype=torch.uint8), transposed=base.t(), part=base[1:3, 2:5], turned=torch.randn(2, 3, 4).permute(2, 0, 1),
        row=base[2], shared=base, empty=torch.zeros(0, 3), one=torch.tensor(3.5), column=base[:, 1:2],
        parameter=torch.nn.Parameter(torch.randn(5)),
    )
    tensors._metadata = {"": {"version": 1}}
    return tensors


if __name__ == "__main__":
    sharded(HERE / "awq")
    tensors = all_kinds()
    folder = HERE / "tensors"
    folder.mkdir(exist_ok=True)
    torch.save(tensors, folder / "pytorch_model.bin")
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, folder / "expected.safetensors")
    one = {"one": torch.ones(2)}
    torch.save(one, HERE / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save({**one, "other": Call()}, HERE / "call.bin")
    torch.save({"state_dict": one}, HERE / "nested.bin")
    torch.save({"flags": torch.ones(2, dtype=torch.bool)}, HERE / "bool.bin")
    torch.save({"many": torch.ones(1, 2).expand(1000, 2)}, HERE / "repeated.bin")
