"""The photographs of a label file that a classifier gets right, as a label file.

    known.py IMAGES LABELS CLASSIFIER SIZE OUT

IMAGES is the folder that LABELS names files of, CLASSIFIER a name such as
`checkpoint:OUT/classifiers/resnet18_pqf.safetensors`. Every photograph is read at SIZE pixels, as an
attack of that size reads it. OUT has the rows of LABELS in their order, without targets.
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import torch

from attnshift.classifiers import load_classifier
from attnshift.data.images import read_image
from attnshift.files import atomic_write


def main(images: Path, labels: Path, classifier: str, size: int, out: Path) -> None:
    network = load_classifier(classifier)
    with labels.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    columns = [name for name in rows[0] if name != "target"]
    kept = []
    with torch.no_grad():
        for row in rows:
            if int(network(read_image(images / row["file"], size)[None]).argmax()) == int(row["label"]):
                kept.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    atomic_write(out, text.getvalue().encode())
    print(f"{classifier} is right about {len(kept)} of {len(rows)} photographs at {size} px: {out}")


if __name__ == "__main__":
    given = sys.argv[1:]
    if len(given) != 5 or not given[3].isdecimal():
        sys.exit(__doc__)
    main(Path(given[0]), Path(given[1]), given[2], int(given[3]), Path(given[4]))
