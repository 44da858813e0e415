"""Draw the picture of the README: python examples/picture.py RUN docs/picture.png"""

import sys
from pathlib import Path

import numpy
from PIL import Image

from attnshift.report.figures import change_map, heat_overlay, pixels
from attnshift.results.rows import ResultRow, VerdictRow
from attnshift.results.store import Store

store, rows = Store.open(Path(sys.argv[1])), []
judged = {row.id: 0 for row in store.table(ResultRow)}
for verdict in store.table(VerdictRow):
    judged[verdict.id] += verdict.arm == "attack" and verdict.role == "judge" and bool(verdict.success)

seen = set()
for row in sorted(store.table(ResultRow), key=lambda row: -judged[row.id]):
    if row.class_name not in seen and len(seen) < 6:
        seen.add(row.class_name)
        clean, attack = (pixels(store.image_path(row.id, arm)) for arm in ("clean", "attack"))
        maps = [(clean, row.attention_clean), (attack, row.attention_attack)]
        peak = max(max(values) for _, values in maps)
        looks = [heat_overlay(image, values, row.attention_side, peak) for image, values in maps]
        rows.append(numpy.concatenate([clean, attack, change_map(clean, attack), *looks], 1))
columns = [numpy.concatenate(rows[:3]), numpy.full((3 * rows[0].shape[0], 8, 3), 255, numpy.uint8)]
picture = Image.fromarray(numpy.concatenate([*columns, numpy.concatenate(rows[3:6])], 1))
picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.LANCZOS).save(sys.argv[2], optimize=True)
