"""What the golden scripts of InternVL share: tokens, sizes, pictures. Not called internvl, as its own package is."""

import language
from PIL import Image

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
MARKS = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None}
# Edge of a tile in pixels and of a patch, tokens of a tile (2 x 2 patches each), most tiles of a picture.
TILE, PATCH, TOKENS, MOST = 16, 4, 4, 6
# 3 x 1, 2 x 3 and 2 x 2 tiles, one tile, 6 x 1 and 1 x 3. Of such sizes that Pillow resizes the width first.
SIZES = {**language.SIZES, "tall": (70, 99), "small": (20, 18), "strip": (83, 9), "column": (16, 54)}
CASES = [
    *language.CASES,
    *(dict(name=f"{name} picture", picture=name, turns=[["Answer Yes or No. Statement: a cat.", ""]], answer_start="")
      for name in ("small", "strip", "column")),
]


def width_first(image, size):
    """Resized as Pillow did before 13 and torchvision does: first the width, then the height."""
    width, height = size
    return image.resize((width, image.height), Image.BICUBIC).resize((width, height), Image.BICUBIC)


def text_sizes(vocabulary, begin, end):
    return dict(
        vocab_size=vocabulary, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-6, bos_token_id=begin,
        eos_token_id=end)


def text_of(tiles):
    """What stands in the place of a picture of so many tiles."""
    return "<img>" + "<IMG_CONTEXT>" * (TOKENS * tiles) + "</img>"


def check_width_first(name, image, pixels, processor):
    """Fails unless the tiles would be the same to the last bit with the width resized first."""
    import numpy as np

    columns, rows = grid_of(image, len(pixels))
    whole = np.asarray(width_first(image, (TILE * columns, TILE * rows)))
    tiles = [whole[y * TILE:(y + 1) * TILE, x * TILE:(x + 1) * TILE] for y in range(rows) for x in range(columns)]
    if len(tiles) > 1:
        tiles.append(np.asarray(width_first(image, (TILE, TILE))))
    mean, std = (np.array(values, np.float32) for values in (processor.image_mean, processor.image_std))
    again = (np.stack(tiles).astype(np.float32) / 255 - mean) / std
    gap = np.abs(again.transpose(0, 3, 1, 2) - pixels.numpy()).max()
    assert gap < 1e-5, f"{name}: columns were resized before rows, which changes it by {gap}"


def grid_of(image, tiles):
    """Columns and rows of a picture that became so many tiles, from its shape."""
    tiles -= tiles > 1
    return min(
        ((columns, tiles // columns) for columns in range(1, tiles + 1) if tiles % columns == 0),
        key=lambda grid: abs(image.width / image.height - grid[0] / grid[1]))
