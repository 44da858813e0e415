"""Measure how many images a second one process can store in a run folder, synced to the disk.

    python benchmarks/storing.py RUN [--on FOLDER] [--count 100]

The files have the sizes of another run. The script prints the rate in micro-batches of one image,
over all images and over the first and the last tenth, which shows whether the cost grows with their
number. It also prints the size of an image's files. FOLDER is on the disk to measure.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from attnshift.results.ledger import Ledger
from attnshift.results.rows import ResultRow
from attnshift.results.store import Store


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder with a finished image")
    parser.add_argument("--on", type=Path, default=Path(), help="where a temporary run folder is made")
    parser.add_argument("--count", type=int, default=100, help="images, at least 10")
    options = parser.parse_args(arguments)
    item = min((options.run / "items").glob("*.json"))
    pngs = sorted((options.run / "images").glob(f"{item.stem}.*.png"))
    images = {path.name.split(".")[1]: path.read_bytes() for path in pngs}
    seconds = keep(options.on, ResultRow.from_record(json.loads(item.read_bytes())), images, options.count)
    size = f"{len(images)} PNGs of {sum(map(len, images.values()))} bytes and {item.stat().st_size} bytes of JSON each"
    tenth = max(1, options.count // 10)
    rates = (len(part) / sum(part) for part in (seconds, seconds[:tenth], seconds[-tenth:]))
    print("{:.1f} images a second, {:.1f} in the first tenth, {:.1f} in the last".format(*rates) + f": {size}")


def keep(parent: Path, row: ResultRow, images: Mapping[str, bytes], count: int) -> list[float]:
    """Return the seconds for each of ``count`` images like this one."""
    with TemporaryDirectory(dir=parent) as folder:
        store, ledger = Store(Path(folder)), Ledger(Path(folder))
        for part in ("images", "items"):
            (store.folder / part).mkdir()
        seconds = []
        for number in range(count):
            begun, id = time.perf_counter(), f"{number:016x}"
            ledger.begun([id])
            store.finish(replace(row, id=id), images)
            ledger.ended([id], {})
            seconds.append(time.perf_counter() - begun)
    return seconds


if __name__ == "__main__":
    main()
