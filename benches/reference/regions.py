"""Boxes, and the pictures that are made with them. A box is (left, top, right, bottom) in pixels of the picture."""

import math

import numpy
from PIL import Image


def to_pixels(picture, relative):
    """A box of OWLv2 (centre, width and height, relative to the padded square) in the picture; none if it lies in the
    padding."""
    x, y, width, height = relative
    side = max(picture.size)

    def clip(value, limit):
        return min(max(value * side, 0.0), limit)

    left, right = clip(x - width / 2, picture.width), clip(x + width / 2, picture.width)
    top, bottom = clip(y - height / 2, picture.height), clip(y + height / 2, picture.height)
    return (left, top, right, bottom) if left < right and top < bottom else None


def around(boxes):
    """The smallest box that holds all boxes."""
    lefts, tops, rights, bottoms = zip(*boxes)
    return min(lefts), min(tops), max(rights), max(bottoms)


def share(picture, box):
    """Part of the picture's area that a box covers, 0 to 1."""
    left, top, right, bottom = box
    return (right - left) * (bottom - top) / (picture.width * picture.height)


def pixels(picture, box):
    """The whole pixels that a box touches, at least one each way."""
    left = min(math.floor(box[0]), picture.width - 1)
    top = min(math.floor(box[1]), picture.height - 1)
    right = min(max(math.ceil(box[2]), left + 1), picture.width)
    bottom = min(max(math.ceil(box[3]), top + 1), picture.height)
    return left, top, right, bottom


def removed(picture, boxes):
    """The picture with boxes filled with its mean colour, rounded to the nearest level (halves up)."""
    values = numpy.array(picture)
    mean = numpy.floor(values.reshape(-1, 3).mean(0, dtype=numpy.float64) + 0.5).astype(numpy.uint8)
    for box in boxes:
        left, top, right, bottom = pixels(picture, box)
        values[top:bottom, left:right] = mean
    return Image.fromarray(values)


def crop(picture, box, min_side):
    """The part of the picture that a box touches, widened around its middle to `min_side` pixels each way where the
    picture is large enough."""
    left, top, right, bottom = pixels(picture, box)
    left, right = widen(left, right, min_side, picture.width)
    top, bottom = widen(top, bottom, min_side, picture.height)
    return picture.crop((left, top, right, bottom))


def widen(start, end, min_length, limit):
    """The span from `start` to `end`, at least `min_length` long if that fits into 0 to `limit`."""
    length = end - start
    widened = max(length, min(min_length, limit))
    start = min(max(start - (widened - length) // 2, 0), limit - widened)
    return start, start + widened


def views(picture):
    """What the relevance scan looks at: the picture and, since CLIP's processor sees only the middle square, for a
    picture that is longer than wide (or wider than long) by more than a sixteenth also the squares that cover it from
    end to end, evenly spaced."""
    width, height = picture.size
    long, short = max(width, height), min(width, height)
    if long - short <= short // 16:
        return [picture]
    count = math.ceil(long / short)
    starts = [(long - short) * index // (count - 1) for index in range(count)]
    squares = [
        (start, 0, start + short, short) if width > height else (0, start, short, start + short) for start in starts
    ]
    return [picture, *(picture.crop(square) for square in squares)]
