"""Tables of docs/performance.md, performance-details.md and backbones.md, made from benchmarks/results.

python benchmarks/table.py [--write]      prints them, or puts them into the pages
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from results import read

__all__ = ["PAGES", "markdown", "written"]

DOCS = Path(__file__).parent.parent / "docs"
START, END = "<!-- from here on written by benchmarks/table.py -->", "<!-- to here -->"
WIDTH = 100
"""Characters in a line of prose."""
Figures = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"into {' and '.join(each.name for each in PAGES)}")
    write = parser.parse_args(arguments).write
    for page in PAGES:
        if write:
            page.write_text(written(page), encoding="utf-8")
        else:
            print(markdown(page))


def written(page: Path) -> str:
    """Return the text of ``page`` with the tables as they are now."""
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    return f"{before}{START}\n\n{markdown(page)}\n{END}{rest.partition(END)[2]}"


def markdown(page: Path) -> str:
    """Return all tables of ``page`` for which something was measured, on the CPU and on the GPU."""
    parts = []
    for device, title in (("cpu", "CPU"), ("cuda", "GPU")):
        models = dict(sorted(read(device).items()))
        for heading, tabled in PAGES[page].items():
            lines = tabled(models)
            if lines:
                parts.append("\n".join([f"### {title}: {heading}", "", *lines, ""]))
    return "\n".join(parts)


def _iterations(models: Mapping[str, Figures]) -> list[str]:
    shown = {name: each for name, each in models.items() if "seconds_iteration" in each}
    names = {"bf16": "bf16", "bf16_pair": "bf16, two together", "quick": "quick"}
    rows = []
    for name, each in shown.items():
        seconds = each["seconds_iteration"]
        faster = {key: seconds["naive"] / taken for key, taken in seconds.items()}
        if "bf16_pair" in faster:
            faster["bf16_pair"] *= 2
        rows.append(
            [
                name,
                *(_seconds(seconds[variant]) for variant in ("naive", "floor", "exact", "bf16", "quick")),
                f"**{faster['exact']:.2f}**",
                *(
                    f"{seconds[variant] / seconds['floor']:.2f}" if variant in seconds else ""
                    for variant in ("exact", "without_terms")
                ),
                *(f"{faster[key]:.2f}" if key in faster else "" for key in names),
            ]
        )
    titles = ["", "naive, s", "floor, s", "exact, s", "bf16, s", "quick, s"]
    titles += ["exact: times as fast as naive", "exact / floor", "the same without terms"]
    titles += [f"{told}: times as fast" for told in names.values()]
    return [*_table(titles, rows), *_circumstances(shown, "iterations", "speed")]


def _images(models: Mapping[str, Figures]) -> list[str]:
    shown = {name: each for name, each in models.items() if "seconds_image" in each}
    rows = []
    for name, each in shown.items():
        seconds, found = each["seconds_image"], each.get("judged", {})
        rows += [
            [
                name if not at else "",
                variant,
                _seconds(seconds[variant]),
                *(
                    f"**{seconds[theirs] / seconds[variant]:.1f}**" if theirs in seconds and theirs != variant else ""
                    for theirs in ("naive", "published")
                ),
                *([f"{found[variant][key]:.0%}" for key in ("attacked", "others")] if variant in found else ["", ""]),
                f"{found[variant]['ssim']:.3f}" if variant in found else "",
            ]
            for at, variant in enumerate(
                each for each in ("published", "naive", "exact", "fast", "quick") if each in seconds
            )
        ]
    titles = ["", "", "seconds an image", "times as fast as naive", "as the published code"]
    titles += ["fools the one attacked", "the seven others", "SSIM"]
    return [*_table(titles, rows), *_circumstances(shown, "images", "speed", ("images",))]


def _profiles(models: Mapping[str, Figures]) -> list[str]:
    shown = {name: each for name, each in models.items() if "profile" in each}
    rows = [
        [name, variant, *(f"{share:.1%}" for share in shares.values())]
        for name, each in shown.items()
        for variant, shares in each["profile"].items()
    ]
    parts = list(next(iter(next(iter(shown.values()))["profile"].values()))) if shown else []
    return _table(["", "", *(part.replace("_", " ") for part in parts)], rows)


def _memory(models: Mapping[str, Figures]) -> list[str]:
    shown = {name: each for name, each in models.items() if "naive" in each.get("bytes", {})}
    variants = {"naive": "naive", "floor": "floor", "exact": "exact", "checkpointed_floor": "floor, checkpointed"}
    variants |= {each: each for each in ("checkpointed", "bf16", "quick")}
    pairs = [("exact", "floor"), ("checkpointed", "checkpointed_floor"), ("exact", "naive"), ("checkpointed", "naive")]
    rows = []
    for name, each in shown.items():
        taken = each["bytes"]
        ratios = [taken[above] / taken[below] if below in taken else None for above, below in pairs]
        rows.append(
            [
                name,
                *(f"{taken[variant] / 1e6:.0f}" if variant in taken else "" for variant in variants),
                *("" if ratio is None else f"**{ratio:.2f}**" for ratio in ratios),
            ]
        )
    titles = ["", *(f"{variant}, MB" for variant in variants.values()), "exact / floor"]
    titles += ["both checkpointed", "exact / naive", "checkpointed / naive"]
    return [*_table(titles, rows), *_circumstances(shown, "memory", "memory")]


def _whole_images(models: Mapping[str, Figures]) -> list[str]:
    shown = {name: each for name, each in models.items() if "published_image" in each.get("bytes", {})}
    rows = [
        [name, *(f"{each['bytes'][variant] / 1e6:.0f}" for variant in ("published_image", "exact_image")),
         f"**{each['bytes']['exact_image'] / each['bytes']['published_image']:.2f}**"]
        for name, each in shown.items()
    ]  # fmt: skip
    return _table(["", "published code, MB", "exact, MB", "exact / published"], rows)


def _large_images(models: Mapping[str, Figures]) -> list[str]:
    shown = {name: each for name, each in models.items() if "large_images" in each}
    rows = [
        [name, side, precision, variant, f"{taken[variant] / 1e9:.1f}", f"{taken[without] / 1e9:.1f}",
         f"{taken[variant] / taken[without]:.2f}", f"{taken['weights'] / 1e9:.1f}"]
        for name, each in shown.items()
        for side, precisions in sorted(each["large_images"].items(), key=lambda entry: int(entry[0]))
        for precision, taken in sorted(precisions.items())
        for variant in ("exact", "checkpointed")
        if (without := f"{variant}_without_terms") in taken
    ]  # fmt: skip
    titles = ["", "side", "precision", "variant", "GB", "without attention terms, GB", "ratio", "weights, GB"]
    told = [
        "Computed, not measured, by `python benchmarks/large_images.py`. The figures come on top of the",
        "weights, which are those of denoiser, autoencoder and surrogate.",
    ]
    return [*_table(titles, rows), *told] if rows else []


def _families(models: Mapping[str, Figures]) -> list[str]:
    shown = models.get("families", {}).get("bytes", {})
    if not shown:
        return []
    names = [name for name in next(iter(shown.values())) if name not in ("weights", "texts")]
    run = models["families"].get("carried_out", {})
    sides = {each["side"] for each in run.values()}
    assert len(sides) < 2, f"carried out at {sides} px; a table has one size"
    rows = [
        [name, *(f"{taken[each] / 1e9:.1f}" for each in ("weights", "texts", *names)), *_carried_out(run.get(name))]
        for name, taken in shown.items()
    ]
    head = ["", "weights, GB", "text encoders, GB", *(f"{name}, GB" for name in names)]
    head += [f"{each} carried out: {what}" for each in sides for what in ("weights", "GB", "CPU s")]
    threads = " and ".join(sorted({f"{each['threads']:.0f}" for each in run.values()}))
    said = (
        "Memory is computed at the true shapes, not measured, by `python benchmarks/families.py FOLDER`. The last "
        "columns are measured: one iteration with random weights in the precision named there, text encoders left "
        f"out, threads {threads} (`--run NAME`)."
    )
    return [*_table(head, rows), *wrap(said, 100)]


def _carried_out(run: Mapping[str, Any] | None) -> list[str]:
    if run is None:
        return ["–"] * 3
    return [run["weights"], f"{run['bytes'] / 1e9:.1f}", f"{run['cpu_seconds']:.0f}"]


def _batches(models: Mapping[str, Figures]) -> list[str]:
    shown = {name: each for name, each in models.items() if "batch" in each}
    rows = [
        [name, f"`{preset}`", *(f"{curve[size]:.2f}" for size in sorted(curve, key=int))]
        for name, each in shown.items()
        for preset, curve in each["batch"].items()
    ]
    sizes = sorted({int(size) for each in shown.values() for curve in each["batch"].values() for size in curve})
    return [*_table(["", "preset", *map(str, sizes)], rows), *_circumstances(shown, "batch", "speed")]


def _rates(models: Mapping[str, Figures]) -> list[str]:
    shown = {name: each for name, each in models.items() if "rates" in each}
    rows = []
    for name, each in shown.items():
        ceilings = each["rates"]["ceilings"]
        for variant, taken in each["rates"]["variants"].items():
            rate, precision = taken["operations"] / taken["seconds"], "bfloat16" if "bf16" in variant else "float32"
            rows.append(
                [
                    name,
                    variant,
                    f"{taken['operations'] / 1e9:.3g}",
                    f"{rate / 1e9:.3g}",
                    f"{ceilings[precision] / 1e9:.3g}",
                    f"**{taken['share']:.0%}**",
                    ", ".join(f"{kernel.removeprefix('aten::')} {share:.0%}" for kernel, share in taken["kernels"]),
                ]
            )
    titles = ["", "", "10⁹ operations", "10⁹ a second", "matrix products", "share", "largest kernels (aten)"]
    return [*_table(titles, rows), *_circumstances(shown, "rates", "rates", ("batch",))]


def _surrogates(models: Mapping[str, Figures]) -> list[str]:
    shown = {name: each for name, each in models.items() if "seconds_surrogates" in each}
    rows = [
        [name, f"`{preset}`", kind, _seconds(taken), f"{taken / seconds['1']:.2f}"]
        for name, each in shown.items()
        for preset, seconds in each["seconds_surrogates"].items()
        for kind, taken in seconds.items()
    ]
    titles = ["", "preset", "surrogates", "seconds an iteration", "against one"]
    return [*_table(titles, rows), *_circumstances(shown, "surrogates", "surrogates", ("batch",))]


def _switches(models: Mapping[str, Figures]) -> list[str]:
    """Return a row for each variant and its reference, then for each that computes the same
    numbers.
    """
    shown = {name: each for name, each in models.items() if "switches" in each}
    lines: list[str] = []
    for each in shown.values():
        measured = each["switches"]
        at = [f"{level:g}" for level in measured["at"]]
        rows = [
            [
                row["switch"],
                row["against"],
                f"{row['times_as_fast']:.2f}",
                *(text for level in at for text in _reading(row["readings"][level], row["switch"] == row["against"])),
            ]
            for row in measured["variants"]
        ]
        for row in measured["same"]:
            factor = row["times_as_fast"]
            told = f"unavailable: {row['reason']}" if factor is None else f"{factor:.2f} ({row['timed']})"
            rows.append([row["switch"], "`quick` as it is", told, *(["same images", ""] * len(at))])
        titles = ["switch", "compared with", "times as fast"]
        titles += [title for level in at for title in (f"success at SSIM {level}", f"gap at SSIM {level}")]
        lines += _table(titles, rows)
    further = ("batch", "images", "surrogates", "strengths")
    return [*lines, *_circumstances(shown, "switches", "switches", further)] if lines else []


def _workers(models: Mapping[str, Figures]) -> list[str]:
    shown = {name: each for name, each in models.items() if "seconds_workers" in each}
    rows = []
    for name, each in shown.items():
        one, two = (each["seconds_workers"][count] for count in ("1", "2"))
        rows.append([name, _seconds(one), _seconds(two), f"**{one / two:.2f}**"])
    titles = ["", "one worker, s", "two workers, s", "times as fast"]
    return [*_table(titles, rows), *_circumstances(shown, "workers", "workers", ("images", "batch"))]


def _allocator(models: Mapping[str, Figures]) -> list[str]:
    shown = {name: each for name, each in models.items() if "allocator" in each}
    rows = []
    for name, each in shown.items():
        before, after = each["allocator"]["given back"], each["allocator"]["kept"]
        row = [name]
        for figure, unit in (("seconds", 1), ("kernel", 1), ("bytes", 1e6)):
            row += [_seconds(each[figure] / unit) for each in (before, after)]
        rows.append([*row, *(f"**{after[key] / before[key]:.2f}**" for key in ("seconds", "bytes"))])
    titles = ["", "CPU seconds, given back", "kept", "of these the kernel's", "kept", "highest memory, MB", "kept"]
    titles += ["seconds, kept / given back", "memory, kept / given back"]
    return [*_table(titles, rows), *_circumstances(shown, "allocator", "allocator", ("images", "preset"))]


def _reading(reading: Figures, itself: bool) -> tuple[str, str]:
    """Return success and gap in words; a variant has no gap to itself."""
    success = reading["reason"] if reading["success"] is None else _share(reading["success"], "")
    gap = "" if itself or reading["gap"] is None else _share(reading["gap"], "+")
    return success, gap


def _share(told: Sequence[float | None], sign: str) -> str:
    """Return a value in per cent, with its interval if there is one."""
    value, low, high = (None if each is None else f"{100 * each:{sign}.0f}" for each in told)
    return f"{value} %" if low is None or high is None else f"{value} % [{low}, {high}]"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles), *lines, ""] if lines else []


def _circumstances(models: Mapping[str, Figures], part: str, script: str, further: Sequence[str] = ()) -> list[str]:
    """Return the machine, once where it is the same, then what differs by model, and last the
    command.
    """
    if not models:
        return []
    measured = {name: each["measured"][part] for name, each in models.items()}
    machines = {_machine(facts) for facts in measured.values()}
    said = []
    for name, facts in measured.items():
        own = {key: facts.get(key, models[name].get(key)) for key in ("seconds", "threads", "rounds", *further)}
        parts = [_machine(facts)] if len(machines) > 1 else []
        parts += [f"{key} {value}" for key, value in own.items() if value is not None]
        said.append(f"{name}: {', '.join(parts)}")
    same = f"{machines.pop()}. " if len(machines) == 1 else ""
    return [*wrap(f"{same}{'; '.join(said)}.", WIDTH), "", f"Measured by `python benchmarks/{script}.py`."]


def _machine(facts: Mapping[str, Any]) -> str:
    where = facts["processor"] if facts["device"] == "cpu" else facts["device"]
    return f"{where}, {facts['cores']} cores, torch {facts['torch']}"


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


PAGES: Mapping[Path, Mapping[str, Callable[[Mapping[str, Figures]], list[str]]]] = {
    DOCS / "performance.md": {
        "one iteration": _iterations,
        "a whole image": _images,
        "memory of an iteration": _memory,
        "memory of a whole image": _whole_images,
        "computed memory of large images": _large_images,
        "freed memory, given back or kept": _allocator,
    },
    DOCS / "backbones.md": {"memory of an iteration on one image, bf16": _families},
    DOCS / "performance-details.md": {
        "where the time of a whole image goes": _profiles,
        "images per second in one iteration, by batch": _batches,
        "share of the matrix rate in one iteration": _rates,
        "what more surrogates cost": _surrogates,
        "what each switch of `quick` gives and costs": _switches,
        "two Ray workers of one thread": _workers,
    },
}
"""The tables of each page by their headings."""

if __name__ == "__main__":
    main()
