"""Draws the sprite atlas of the scene world from the Noto Color Emoji font.

    python sprites.py [--font NotoColorEmoji.ttf] [--sheet sheet.png]

Reads ../world/world.json and writes ../world/sprites.png: one 96 px cell a sprite, ten columns, in the order in which
world.json lists classes and their sprites, straight alpha. Each glyph is cropped to its visible box and centred in a
square, so that an object's size in the world is the longer side of what is seen of it.

Needs Pillow with raqm (skin tones are ligatures) and the font (Debian: fonts-noto-color-emoji).
"""

import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

WORLD_DIR = Path(__file__).resolve().parent.parent / "world"
FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
STRIKE = 109  # the only size in which the font's bitmaps exist
COLUMNS = 10


def glyph(text, font, cell):
    """One emoji as a `cell` x `cell` RGBA picture; an error if the font lacks it or draws it as two glyphs."""
    canvas = Image.new("RGBA", (420, 200), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((20, 30), text, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise SystemExit(f"the font has no glyph for {text!r}")
    if box[2] - box[0] > 140:
        raise SystemExit(f"{text!r} was drawn as several glyphs: is raqm missing?")
    picture = canvas.crop(box)
    side = max(picture.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    # Resampling with premultiplied alpha keeps the transparent black of the canvas out of the rims.
    return square.convert("RGBa").resize((cell, cell), Image.LANCZOS).convert("RGBA")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--font", default=FONT)
    parser.add_argument("--sheet", help="also write the atlas over grey, to look at")
    args = parser.parse_args()
    if not features.check("raqm"):
        raise SystemExit("this Pillow has no raqm: skin tones would be drawn beside the faces")
    world = json.loads((WORLD_DIR / "world.json").read_text(encoding="utf-8"))
    cell = world["sprite_size"]
    font = ImageFont.truetype(args.font, STRIKE, layout_engine=ImageFont.Layout.RAQM)
    sprites = [text for entry in world["classes"] for text in entry["sprites"]]
    rows = -(-len(sprites) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * cell, rows * cell), (0, 0, 0, 0))
    for number, text in enumerate(sprites):
        atlas.paste(glyph(text, font, cell), ((number % COLUMNS) * cell, (number // COLUMNS) * cell))
    atlas.save(WORLD_DIR / "sprites.png", optimize=True)
    if args.sheet:
        sheet = Image.new("RGB", atlas.size, (200, 200, 200))
        sheet.paste(atlas, (0, 0), atlas)
        sheet.save(args.sheet)
    print(f"{len(sprites)} sprites of {len(world['classes'])} classes")


if __name__ == "__main__":
    main()
