"""Writes the small Parquet files of the tests, in the shape in which UnsafeBench is published: `image` is a struct of
`bytes` and `path`, as the library `datasets` writes pictures. The pictures are plain colours.

Run with pyarrow 21 or newer and Pillow: `python unsafebench.py`.
"""

import io

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(colour):
    out = io.BytesIO()
    Image.new("RGB", (48, 32), colour).save(out, "PNG")
    return out.getvalue()


def table(rows, **types):
    fields = {
        "image": IMAGE,
        "safety_label": pa.string(),
        "category": pa.string(),
        "source": pa.string(),
        "text": pa.string(),
    }
    fields.update(types)
    columns = {
        name: pa.array([row[name] for row in rows], type=kind) for name, kind in fields.items() if name in rows[0]
    }
    return pa.table(columns)


def row(index, colour, label="Safe"):
    return {
        "image": {"bytes": picture(colour), "path": None if index % 3 == 2 else f"{index}.png"},
        "safety_label": label,
        "category": ["Spam", "Health"][index % 2],
        "source": ["Lexica", "Laion5B"][index // 4 % 2],
        "text": None if index % 4 == 3 else f"a field of colour {index}",
    }


rows = [row(i, (i * 20, 255 - i * 20, 90), "Unsafe" if i % 2 else "Safe") for i in range(10)]
# Two shards, the first of three row groups.
pq.write_table(table(rows[:7]), "unsafebench-0.parquet", row_group_size=3, compression="snappy")
pq.write_table(table(rows[7:]), "unsafebench-1.parquet", compression="none")
without = [{key: value for key, value in row.items() if key != "category"} for row in rows[:2]]
pq.write_table(table(without), "no-category.parquet")
numbers = [{**row, "category": index} for index, row in enumerate(rows[:2])]
pq.write_table(table(numbers, category=pa.int32()), "category-number.parquet")
pq.write_table(table(rows[:2]), "brotli.parquet", compression="brotli")
