"""Tables and pictures of a page of docs, made from the comparisons of a study.

    comparisons.py STUDY PAGE

STUDY is the folder of study_lab.sh, study_photographs.sh or steering.sh. Every comparison that it
holds becomes tables in PAGE, between the two marks there; judged.py makes those of its runs behind
defences. Tables of comparisons that it does not hold stay as they are. The success of the main
table is drawn beside PAGE, in a PNG of its name. With several limits of LPIPS, photographs-
curve.png beside PAGE has the success at each. A study of photographs also gets STUDY/pairs.png,
clean and attacked images at full size; it holds photographs, which are not the project's, and stays
with the study.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import numpy
from judged import judged, summaries
from PIL import Image, ImageDraw

from attnshift.baselines import BASELINES, needs_diffusion
from attnshift.metrics.statistics import Estimate
from attnshift.report.figures import chance, percent, pixels
from attnshift.results.rows import ResultRow
from attnshift.results.store import Store

START, END = "<!-- from here on written by examples/pages/comparisons.py -->", "<!-- to here -->"
OURS = ("strong", "pixels")
"""Presets that the pairs show beside the best attack of others."""
MAIN = ("main", "budget")
"""Comparisons that a page's picture shows: the first one that is there."""
METRICS = ("ssim", "haarpsi", "psnr", "lpips-squeeze", "flat_noise")
COSTS = {
    "surrogate_gradients": "surrogate gradients",
    "denoiser_evaluations": "denoiser evaluations",
    "cpu_seconds": "CPU s",
}
DIGITS = {"psnr": 1, "flat_noise": 2}
SUCCESS = re.compile(r"\| (.+?) \| (-?\d+) % \[(-?\d+), (-?\d+)\]")
"""Beginning of a row: the attack, its success and the interval."""
Facts = Mapping[str, Any]


def main(study: Path, page: Path) -> None:
    read = {path.parent.name: json.loads(path.read_text()) for path in sorted(study.glob("*/compare.json"))}
    found = {name: facts for name, facts in read.items() if "budgets" in facts}
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    there, _, after = rest.partition(END)
    tables = kept(there) | {name: [*comparison(name, facts), *behind(study / name)] for name, facts in found.items()}
    text = "\n".join(line for name in sorted(tables) for line in tables[name])
    page.write_text(f"{before}{START}\n\n{text}\n{END}{after}", encoding="utf-8")
    draw_success(next(tables[name] for name in MAIN if name in tables), page.with_suffix(".png"))
    if "single" in found and sum(table["budget"].startswith("lpips") for table in found["single"]["budgets"]) > 1:
        draw_curve(found["single"], page.with_name("photographs-curve.png"))
    if "main" in found:
        draw_pairs(study / "main", found["main"], study / "pairs.png")


def kept(tables: str) -> dict[str, list[str]]:
    """Lines of the tables that a page has, by the comparison that their heading begins with."""
    found: dict[str, list[str]] = {}
    for part in tables.split("\n### ")[1:]:
        found.setdefault(part.partition(":")[0], []).extend([*f"### {part.rstrip()}\n".splitlines(), ""])
    return found


def comparison(name: str, facts: Facts) -> Iterator[str]:
    """Lines of Markdown: for each budget success, then naturalness and cost, the best attack first."""
    for table in facts["budgets"]:
        lines = sorted(table["recipes"], key=lambda line: -line["success"]["value"])
        judges = [Path(judge).stem for judge in lines[0]["judges"]]
        yield f"### {name}: {table['budget']}, {facts['images']} images at {facts['size']} px\n"
        referred = ["label kept"] if any(line["label_kept"] for line in lines) else []
        yield from rows(
            [
                "attack",
                "success",
                *judges,
                *referred,
                f"difference to {table['recipes'][0]['name']}",
                "won / lost",
                "p",
            ],
            ([label(line), *successes(line), *(kept_label(line) for _ in referred), *against(line)] for line in lines),
        )
        metrics = [metric for metric in METRICS if all(metric in line["quality"] for line in lines)]
        yield from rows(
            ["attack", "spent", "pixel share", *metrics, *COSTS.values(), "beaten at its compute by"],
            (
                [
                    label(line),
                    share(line["spent"]),
                    share(line["pixel_share"]),
                    *means(line, metrics),
                    beaten_by(line, lines),
                ]
                for line in lines
            ),
        )
    yield (
        "*Beaten at its compute by*: the attack with the most success of those with no more gradients and no\n"
        "more evaluations for an image, budget by budget.\n"
    )


def behind(comparison: Path) -> Iterator[str]:
    """Lines of Markdown: runs of a comparison that were also judged behind defences, or whose labels
    are not all kept."""
    told = summaries(sorted((comparison / "runs").iterdir()))
    if any(each.defended or (each.label and each.label.kept["attack"].value < 1) for each in told.values()):
        yield f"### {comparison.name}: behind defences, and with the label kept\n"
        yield from judged(told)


def rows(head: list[str], body: Iterator[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    yield from (f"| {' | '.join(cells)} |" for cells in body)
    yield ""


def label(line: Facts) -> str:
    attack = line["name"].partition("+")[0]  # behind the sign stands what it knows
    if attack not in BASELINES:
        return f"**{line['name']}**"
    return f"{line['name']} ({'diffusion' if needs_diffusion(attack) else 'pixels'})"


def successes(line: Facts) -> Iterator[str]:
    yield from (percent(estimate(each)) for each in (line["success"], *line["judges"].values()))


def against(line: Facts) -> Iterator[str]:
    if not line["gap"]:
        yield from ("–", "–", "–")
    else:
        yield percent(estimate(line["gap"]))
        yield f"{line['change']['won']} / {line['change']['lost']}"
        yield chance(line["change"]["p_holm"])


def kept_label(line: Facts) -> str:
    return percent(estimate(line["label_kept"])) if line["label_kept"] else "–"


def share(data: Facts | None) -> str:
    """A mean in percent; an attack without added pixels has no share of them."""
    return "–" if data is None else percent(estimate(data)).split(" [")[0]


def means(line: Facts, metrics: list[str]) -> Iterator[str]:
    for metric in metrics:
        yield f"{line['quality'][metric]['value']:.{DIGITS.get(metric, 3)}f}"
    for cost in COSTS:
        value = line["costs"][cost]["value"]
        yield "–" if value is None else f"{value:.1f}"


def beaten_by(line: Facts, lines: Sequence[Facts]) -> str:
    """The attack with the most success of those that cost no more than ``line``, if it has more.

    Gradients of surrogates and evaluations of the denoiser have no rate of exchange: it has no more of either.
    """
    own = spent_on(line)
    rivals = [
        other for other in lines if own and (spent := spent_on(other)) and spent[0] <= own[0] and spent[1] <= own[1]
    ]
    best = max(rivals, key=lambda other: other["success"]["value"], default=line)
    return best["name"] if best["success"]["value"] > line["success"]["value"] else "–"


def spent_on(line: Facts) -> tuple[float, float] | None:
    """Gradients and evaluations for an image; None where a run did not count them."""
    gradients, evaluations = (line["costs"][cost]["value"] for cost in ("surrogate_gradients", "denoiser_evaluations"))
    return None if gradients is None or evaluations is None else (gradients, evaluations)


def estimate(data: Facts) -> Estimate:
    known = {key: float("nan") if value is None else value for key, value in data.items()}
    return Estimate(known["value"], known["low"], known["high"], int(known["count"]))


def draw_success(lines: Sequence[str], target: Path) -> None:
    """Success of each attack with its interval, as the first table of ``lines`` says; ours are bold."""
    from matplotlib import pyplot

    table = takewhile(str.strip, dropwhile(lambda line: not line.startswith("|"), lines))
    found = [told for line in table if (told := SUCCESS.match(line))]
    figure, axes = pyplot.subplots(figsize=(7, 0.6 + 0.28 * len(found)), dpi=110)
    for place, told in enumerate(reversed(found)):
        value, low, high = map(float, told.groups()[1:])
        colour = "tab:blue" if told[1].startswith("**") else "tab:grey"
        axes.errorbar(value, place, xerr=[[value - low], [high - value]], fmt="o", color=colour, markersize=5)
    axes.set_yticks(range(len(found)), [told[1].replace("*", "") for told in reversed(found)])
    for text, told in zip(axes.get_yticklabels(), reversed(found), strict=True):
        text.set_fontweight("bold" if told[1].startswith("**") else "normal")
    axes.set_xlim(left=min(0.0, *axes.get_xlim()), right=100)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("attributable success on the judges, %, with 95 % intervals")
    figure.tight_layout()
    figure.savefig(target)


def draw_curve(facts: Facts, target: Path) -> None:
    """Success at each limit of LPIPS, with intervals; ours in full lines, pixels dashed."""
    from matplotlib import pyplot

    limits = {
        float(table["budget"].partition("=")[2]): {line["name"]: estimate(line["success"]) for line in table["recipes"]}
        for table in facts["budgets"]
        if table["budget"].startswith("lpips")
    }
    names = [line["name"] for line in facts["budgets"][0]["recipes"]]
    figure, axes = pyplot.subplots(figsize=(7, 4.5), dpi=110)
    for place, name in enumerate(names):
        found = [(limit, each[name]) for limit, each in sorted(limits.items()) if name in each]
        # Beside each other, so that no interval hides another.
        at = [limit * (1 + 0.012 * (place - len(names) / 2)) for limit, _ in found]
        values = [100 * each.value for _, each in found]
        lengths = [[100 * (e.value - e.low) for _, e in found], [100 * (e.high - e.value) for _, e in found]]
        style = "--" if name in BASELINES else "-"
        axes.errorbar(at, values, lengths, label=name, linestyle=style, marker="o", markersize=3, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(sorted(limits), [f"{each:g}" for each in sorted(limits)])
    axes.minorticks_off()
    axes.set_xlabel("LPIPS (SqueezeNet) that every image keeps")
    axes.set_ylabel("attributable success on the judges, %")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, ncols=2, loc="lower right")
    figure.tight_layout()
    figure.savefig(target)


def draw_pairs(folder: Path, facts: Facts, target: Path, count: int = 6) -> None:
    """Clean, ours and the best attack of others, at full size: the first photographs of the study."""
    table = facts["budgets"][0]
    rivals = [line for line in table["recipes"] if line["name"] in BASELINES]
    best = max(rivals, key=lambda line: line["success"]["value"])["name"]
    stores = {name: Store.open(folder / "runs" / f"{name}@{table['budget']}") for name in (*OURS, best)}
    ids = [row.id for row in stores[best].table(ResultRow)][:count]
    columns = [("clean", stores[best], "clean"), *((name, store, "attack") for name, store in stores.items())]
    size, gap, head = facts["size"], 4, 16
    sheet = Image.new(
        "RGB", (2 * (len(columns) * (size + gap) + 2 * gap), head + (count + 1) // 2 * (size + gap)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for half in range(2):
        left = half * (len(columns) * (size + gap) + 3 * gap)
        for column, (title, store, arm) in enumerate(columns):
            x = left + column * (size + gap)
            draw.text((x + 2, 2), title, fill="black")
            for row, id in enumerate(ids[half::2]):
                image = Image.fromarray(numpy.ascontiguousarray(pixels(store.image_path(id, arm))))
                sheet.paste(image, (x, head + row * (size + gap)))
    sheet.save(target, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
