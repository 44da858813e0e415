"""A comparison is its runs: each as `attack` makes it, continued where it stopped, judged once, and never mixed."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnshift.data.images import read_image, write_png
from attnshift.errors import ModelError, RecipeError, RunError, UserError
from attnshift.execution.coordinate import attack_folder
from attnshift.judging.verdicts import evaluate_run
from attnshift.lab.weights import pipeline_folder as lab_weights
from attnshift.recipes.reading import load_recipe
from attnshift.recipes.reading import load_recipe as load_any
from attnshift.recipes.schema import BaselineRecipe, Recipe
from attnshift.recipes.strength import at_strength
from attnshift.report.curves import measure_comparison
from attnshift.results.store import Store
from attnshift.studies import comparison
from attnshift.studies.comparison import ComparisonSettings, compare_recipes
from attnshift.studies.entrants import Entrant, read_entrants
from attnshift.telemetry import Event, ImageDone, RunBegun
from planted import edit_json
from small_runs import SHORT_PATH, SIDE, SURROGATE, Told, contents, pngs, small_settings
from tables import records, write_records
from tiers import fast_first

JUDGE, OTHER = "random:test_convnext", "random:test_efficientnet"


def short(*changes: str) -> Recipe:
    return load_recipe("quick", ["optimiser.iterations=1", "finish.keep=last", SHORT_PATH, *changes])


def entered(*strengths: float, **recipes: Recipe | BaselineRecipe) -> tuple[Entrant, ...]:
    return tuple(Entrant(name, recipe, strengths) for name, recipe in recipes.items())


BOTH = {"short": short(), "long": short("optimiser.iterations=2")}


@pytest.fixture
def settings(photos: Path, pipeline_folder: Path, tmp_path: Path) -> ComparisonSettings:
    """Two recipes, two strengths, two images."""
    return ComparisonSettings(
        images=photos / "images",
        labels=photos / "labels.csv",
        pipeline=str(pipeline_folder),
        surrogates=(SURROGATE,),
        judges=(JUDGE,),
        entrants=entered(1.0, 2.0, **BOTH),
        out=tmp_path / "out",
        batch=1,
        limit=2,
        threads=1,
    )


def quietly(settings: ComparisonSettings) -> comparison.Compared:
    return compare_recipes(settings)


class ToldOfRuns(Told):
    """Hears of (run, number of the image) and presses Ctrl-C at one of them."""

    def __init__(self, stop_at: tuple[str, int] = ("", 0)):
        super().__init__()
        self.stop_at = stop_at
        self.seen: list[tuple[str, int]] = []

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, RunBegun):
            self.name, self.count = event.name, event.done
        if isinstance(event, ImageDone):
            self.count += 1
            self.seen.append((self.name, self.count))
            if self.seen[-1] == self.stop_at:
                raise KeyboardInterrupt


@pytest.fixture(scope="session")
def whole(photos: Path, pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The comparison of ``settings``, undisturbed. Not to be written to."""
    folder = tmp_path_factory.mktemp("comparison") / "out"
    inputs = {"images": photos / "images", "labels": photos / "labels.csv", "pipeline": str(pipeline_folder)}
    asked = {"judges": (JUDGE,), "entrants": entered(1.0, 2.0, **BOTH), "out": folder}
    quietly(ComparisonSettings(**inputs, surrogates=(SURROGATE,), batch=1, limit=2, threads=1, **asked))
    return folder


@pytest.fixture
def held(settings: ComparisonSettings, whole: Path) -> ComparisonSettings:
    """``settings`` whose folder holds the whole comparison already."""
    shutil.copytree(whole, settings.out)
    return settings


def test_each_run_is_that_of_an_attack(photos: Path, pipeline_folder: Path, whole: Path, tmp_path: Path) -> None:
    """The networks are loaded once for all: that changes no byte."""
    assert sorted(path.name for path in (whole / "runs").iterdir()) == ["long@1", "long@2", "short@1", "short@2"]
    alone = small_settings(photos, pipeline_folder, tmp_path / "alone", batch=1, limit=2, threads=1)
    attack_folder(replace(alone, recipe=at_strength(short(), 2.0)))
    assert pngs(tmp_path / "alone") == pngs(whole / "runs" / "short@2")


def test_strength_is_a_factor_of_the_learning_rate_and_nothing_else() -> None:
    recipe = short("optimiser.learning_rate=0.04")
    assert at_strength(recipe, 1.0) is recipe
    half = at_strength(recipe, 0.5)
    assert half.optimiser.learning_rate == 0.02
    assert half.name == "quick@0.5"
    optimiser = half.optimiser.model_copy(update={"learning_rate": 0.04})
    assert half.model_copy(update={"name": "quick", "optimiser": optimiser}) == recipe


@pytest.mark.heavy
@pytest.mark.parametrize(("run", "number"), [("short@1", 1), ("short@2", 2)])
def test_an_interrupted_comparison_ends_like_a_whole_one(
    settings: ComparisonSettings, whole: Path, run: str, number: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        compare_recipes(settings, ToldOfRuns((run, number)).telemetry())
    told = ToldOfRuns()
    compared = compare_recipes(settings, told.telemetry())
    assert (run, number) not in told.seen, "it was finished"
    assert 0 < len(told.seen) < 8
    assert pngs(settings.out) == pngs(whole)
    for name, line in compared.runs.items():
        for strength, store in line.items():
            undisturbed = Store.open(whole / "runs" / f"{name}@{strength:g}")
            assert records(store, "verdicts") == records(undisturbed, "verdicts")
            assert records(store, "quality") == records(undisturbed, "quality")


def judged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...]]]:
    """Fills with the runs that are judged from now on, and by whom."""
    calls: list[tuple[str, tuple[str, ...]]] = []

    def evaluate(store: Store, judges: Any, **options: Any) -> tuple[str, ...]:
        calls.append((store.folder.name, tuple(judge.name for judge in judges)))
        return before(store, judges, **options)

    before = comparison.evaluate_run
    monkeypatch.setattr(comparison, "evaluate_run", evaluate)
    return calls


def test_a_finished_comparison_is_left_as_it_is(held: ComparisonSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, before = judged(monkeypatch), contents(held.out)
    compared = quietly(held)
    assert calls == []
    assert contents(held.out) == before
    assert {name: list(line) for name, line in compared.runs.items()} == {"short": [1.0, 2.0], "long": [1.0, 2.0]}
    assert compared.judges == (JUDGE,)


def test_another_judge_is_asked_alone(held: ComparisonSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = judged(monkeypatch)
    quietly(replace(held, judges=(JUDGE, OTHER)))
    assert calls == [(name, (OTHER,)) for name in ("short@1", "short@2", "long@1", "long@2")]
    verdicts = records(Store.open(held.out / "runs" / "long@1"), "verdicts")
    assert {row["classifier"] for row in verdicts} == {SURROGATE, JUDGE, OTHER}


def test_a_run_that_was_judged_in_part_is_judged_again(
    held: ComparisonSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (held.out / "runs" / "long@1" / "quality.parquet").unlink()
    short_run = Store.open(held.out / "runs" / "short@2")
    lost = records(short_run, "results")[0]["id"]
    write_records(short_run, "verdicts", [row for row in records(short_run, "verdicts") if row["id"] != lost])
    calls = judged(monkeypatch)
    quietly(held)
    assert calls == [("short@2", (JUDGE,)), ("long@1", (JUDGE,))]


@pytest.mark.heavy
def test_it_may_grow(held: ComparisonSettings) -> None:
    before = pngs(held.out)
    compared = quietly(replace(held, entrants=(*entered(1.0, new=short("seed=3")), *held.entrants)))
    assert list(compared.runs) == ["new", "short", "long"]
    assert len(list((held.out / "runs").iterdir())) == 5
    assert before.items() <= pngs(held.out).items()


CHANGES: dict[str, tuple[Callable[[ComparisonSettings], ComparisonSettings], str]] = {
    "another surrogate": (lambda held: replace(held, surrogates=(OTHER,)), f"surrogates.*{OTHER}.*not.*{SURROGATE}"),
    "another batch": (lambda held: replace(held, batch=2), "batch: 2, not 1"),
    "another recipe of that name": (
        lambda held: replace(held, entrants=entered(1.0, 2.0, **BOTH | {"long": short("seed=5")})),
        "long@1 holds another run.*recipe.optimiser.iterations: 1, not 2; recipe.seed: 5, not 0",
    ),
    "one recipe less": (
        lambda held: replace(held, entrants=entered(1.0, 2.0, short=BOTH["short"])),
        "also holds long@1, long@2; a comparison grows and never shrinks",
    ),
    "one strength less and another": (
        lambda held: replace(held, entrants=entered(2.0, 3.0, **BOTH)),
        "also holds long@1, short@1; ",
    ),
}


@pytest.mark.parametrize("name", fast_first(CHANGES, 2))
def test_something_else_in_the_same_folder_is_refused_with_the_difference(held: ComparisonSettings, name: str) -> None:
    change, message = CHANGES[name]
    before = contents(held.out)
    with pytest.raises(RunError, match=message):
        # Together with a run that does not exist yet: it must not be begun.
        quietly(replace(change(held), entrants=(*change(held).entrants, *entered(1.0, new=short("seed=7")))))
    assert contents(held.out) == before


BAD: dict[str, tuple[dict[str, Any], type[UserError], str]] = {
    "no surrogate": ({"surrogates": ()}, UserError, "`surrogates`"),
    "no judge": ({"judges": ()}, UserError, "`judges`"),
    "no recipe": ({"entrants": ()}, UserError, "`recipes`"),
    "no strength": ({"entrants": entered(a=short())}, UserError, "`strengths`"),
    "strength of 0": ({"entrants": entered(1.0, 0.0, a=short())}, UserError, "`strengths` of a: 0; it must lie"),
    "strength that is no number": ({"entrants": entered(math.nan, a=short())}, UserError, "`strengths` of a: nan"),
    "strength twice": ({"entrants": entered(1.0, 2.0, 1.0, a=short())}, UserError, "of a: 1 is given twice"),
    "judge twice": ({"judges": (JUDGE, JUDGE)}, UserError, f"`judges`: {JUDGE} is given twice"),
    "images of its own beside edits": (
        {"entrants": entered(1.0, a=short(), b=load_recipe("advdiff_noise"))},
        UserError,
        "b makes images of its own, and a edits those that it is given; compare them apart",
    ),
    "judge that is attacked": ({"judges": (f"jpeg+{SURROGATE}",)}, UserError, "cannot be a judge: it is a surrogate"),
    "judge of another recipe's tuning": (
        {"entrants": entered(1.0, a=short(), b=short(f'tuned_on=["{JUDGE}"]'))},
        UserError,
        f"{JUDGE} cannot be a judge",
    ),
    "judge that does not exist": ({"judges": ("timm:resnet5O",)}, ModelError, "did you mean 'resnet50"),
    "judge of too few classes": ({"judges": ("lab:coatnet",)}, ModelError, "lab:coatnet has no class called"),
    "unusable second recipe": (
        {"entrants": entered(1.0, good=short(), bad=short("diffusion.denoising_steps=21"))},
        UserError,
        "`recipes`, bad: diffusion.schedule_steps and denoising_steps: of a schedule of 20 steps 1 to 20 can",
    ),
    "masks for nobody": ({"masks": Path("masks")}, UserError, "`masks` is masks, which this recipe does not read"),
    "no masks": (
        {"entrants": entered(1.0, a=short(), b=short("mask.source=given"))},
        UserError,
        "set `masks` to their folder",
    ),
    "radius above 1": (
        {"entrants": entered(1.0, 20.0, mifgsm=load_any("mifgsm"))},
        UserError,
        "strength 20 is too much for mifgsm: baseline 'mifgsm': epsilon",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_anything_is_written(settings: ComparisonSettings, name: str) -> None:
    changes, kind, message = BAD[name]
    with pytest.raises(kind) as caught:
        quietly(replace(settings, **changes))
    assert message in str(caught.value)
    assert not settings.out.exists()


@pytest.mark.parametrize("foreign", ["thesis.tex", "runs/thesis.tex"])
def test_a_folder_with_something_else_is_left_alone(settings: ComparisonSettings, foreign: str) -> None:
    path = settings.out / foreign
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    with pytest.raises(RunError, match="another `out`"):
        quietly(settings)
    assert list(contents(settings.out)) == [foreign]


@pytest.mark.heavy
def test_masks_go_to_the_recipes_that_ask_for_them(settings: ComparisonSettings, tmp_path: Path) -> None:
    for path in settings.images.iterdir():
        write_png(tmp_path / path.name, read_image(path, SIDE).round(), {})
    entrants = entered(1.0, plain=short(), masked=short("mask.source=given"))
    compared = quietly(replace(settings, entrants=entrants, limit=1, masks=tmp_path))
    plain, masked = (records(compared.runs[name][1.0], "results") for name in ("plain", "masked"))
    assert [row["file"] for row in plain] == [row["file"] for row in masked]
    assert plain[0]["id"] != masked[0]["id"]


def test_the_pipeline_is_measured_where_the_first_recipe_does_without_it(
    settings: ComparisonSettings, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(lab_weights(), wrong)
    edit_json(wrong / "vae" / "config.json", scaling_factor=0.18215)
    entrants = (Entrant("pgd", load_recipe("pgd"), (1.0,)), Entrant("short", short(), (1.0,)))
    with pytest.raises(ModelError, match="spread too little"):
        compare_recipes(replace(settings, pipeline=str(wrong), entrants=entrants))


def test_recipes_are_called_by_preset_peer_or_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "anything"\n')
    (tmp_path / "me@home.toml").write_text('name = "other"\n')
    sources = ["quick", str(tmp_path / "mine.toml"), "mifgsm@0.5,2", str(tmp_path / "me@home.toml"), "nearest@4"]
    entrants = read_entrants(sources, [1.0, 3.0])
    assert [(each.name, each.recipe.name, each.strengths) for each in entrants] == [
        ("quick", "quick", (1.0, 3.0)),
        ("mine", "anything", (1.0, 3.0)),
        ("mifgsm", "mifgsm", (0.5, 2.0)),
        ("me@home", "other", (1.0, 3.0)),
        ("nearest", "nearest", (4.0,)),
    ]
    shutil.copy(tmp_path / "mine.toml", tmp_path / "quick.toml")
    with pytest.raises(UserError, match="two recipes are called quick"):
        read_entrants(["quick", str(tmp_path / "quick.toml")], [1.0])


def test_a_recipe_that_knows_a_defence_stands_behind_itself() -> None:
    static, known, both, *_ = read_entrants(["pgd@2", "quick"], [1.0], adaptive=["jpeg(quality=60)", "jpeg+median"])
    assert (static.name, known.name, both.name) == ("pgd", "pgd+jpeg", "pgd+jpeg+median")
    assert known == replace(static, name="pgd+jpeg", defence="jpeg(quality=60)")
    assert static.surrogates(["a:b"]) == ("a:b",)
    assert known.surrogates(["a:b"]) == ("jpeg(quality=60)+a:b",)
    for wrong in ("lab:resnet", "jpeg+lab:resnet", ""):
        with pytest.raises(RecipeError, match="is no defence; give one such as"):
            read_entrants(["pgd"], [1.0], adaptive=[wrong])
    with pytest.raises(UserError, match="two recipes are called pgd\\+jpeg"):
        read_entrants(["pgd"], [1.0], adaptive=["jpeg", "jpeg(quality=60)"])


def test_a_key_is_swept_by_recipes_that_carry_its_value_in_their_name() -> None:
    weights, scales = "terms.entropy.weight=0,0.25", "expectation.transforms.scale_and_shift.scale=[0.7, 1.3],[1.0,1.0]"
    found = read_entrants(
        ["fast@2", "quick"], [1.0], adaptive=["jpeg"], changes=["optimiser.iterations=2"], sweeps=[weights, scales]
    )
    scale = "expectation.transforms.scale_and_shift.scale"
    first = f"fast,terms.entropy.weight=0,{scale}=0.7-1.3"
    assert len({each.name for each in found}) == len(found) == 2 * 4 * 2
    assert [each.name for each in found[:3]] == [first, f"{first}+jpeg", f"fast,terms.entropy.weight=0,{scale}=1.0-1.0"]
    assert (found[0].recipe.name, found[0].strengths, found[1].defence) == (first, (2.0,), "jpeg")
    last = found[-1].recipe
    assert isinstance(last, Recipe)
    assert (last.terms["entropy"].weight, last.optimiser.iterations) == (0.25, 2)
    assert last.expectation.transforms["scale_and_shift"].options["scale"] == [1.0, 1.0]
    losses = read_entrants(["quick"], [1.0], sweeps=["classification.loss=margin,cross_entropy"])
    assert [each.name for each in losses] == [
        "quick,classification.loss=margin",
        "quick,classification.loss=cross_entropy",
    ]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("optimiser.iterations", "`sweeps` is optimiser.iterations; expected KEY=VALUE,…, such as terms"),
        ("optimiser.iterations=", "`sweeps` is optimiser.iterations=; expected"),
        ("classification.loss=a,,b", "`sweeps` is classification.loss=a,,b; expected"),
        ("optimiser.iterations=2,2", "two recipes are called quick,optimiser.iterations=2; give each value and each"),
        ("optimiser.iterations=2,x", "iterations: .*got 'x'"),
    ],
)
def test_a_sweep_that_cannot_be_meant_is_refused(sweep: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_entrants(["quick"], [1.0], sweeps=[sweep])


def test_static_and_adaptive_runs_stand_in_one_comparison(settings: ComparisonSettings) -> None:
    pgd = load_any("pgd", ["baseline.steps=1"])
    entrants = (Entrant("pgd", pgd, (1.0,)), Entrant("pgd+jpeg", pgd, (1.0,), defence="jpeg(quality=30)"))
    judge = f"jpeg(quality=30)+{JUDGE}"
    compared = quietly(replace(settings, entrants=entrants, judges=(judge,), limit=1))
    static, known = (compared.runs[name][1.0] for name in ("pgd", "pgd+jpeg"))
    assert known.spec().surrogates == (f"jpeg(quality=30)+{SURROGATE}",)
    assert static.spec().surrogates == (SURROGATE,)
    assert pngs(static.folder) != pngs(known.folder)
    assert measure_comparison(compared.runs, compared.judges, (0.9,)).images == 1


def test_a_peer_is_compared_like_a_recipe(settings: ComparisonSettings) -> None:
    """Its success is its own from the start: it reconstructs nothing."""
    compared = quietly(replace(settings, entrants=entered(0.45, 1.0, pgd=load_any("pgd"))))
    for strength, run in compared.runs["pgd"].items():
        images = [path.name.split(".")[1] for path in (run.folder / "images").iterdir()]
        assert sorted(images) == sorted(2 * ["attack", "clean", "noise"])
        assert {row["arm"] for row in records(run, "verdicts")} == {"attack", "clean", "noise"}
        recipe = run.spec().recipe
        assert isinstance(recipe, BaselineRecipe)
        assert recipe.baseline.options["epsilon"] == pytest.approx(strength * 8 / 255)
        far = [row["linf"] for row in records(run, "quality") if row["arm"] == "attack"]
        assert far == pytest.approx([math.floor(strength * 8) / 255] * 2, abs=1e-6), "also after rounding to 8 bits"
    measured = measure_comparison(compared.runs, compared.judges, (0.9,))
    (line,) = measured.lines
    similar = [point.ssim.value for point in line.points]
    assert similar[1] < similar[0] < 1


@pytest.mark.heavy
def test_an_image_that_fails_is_left_out_and_tried_again_when_asked(
    settings: ComparisonSettings, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(settings.images, images)
    broken = sorted(images.iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:200])
    settings = replace(settings, images=images, limit=3)
    compared = compare_recipes(settings)
    found = measure_comparison(compared.runs, compared.judges, [0.9])
    assert (found.images, found.planned) == (2, 3)
    assert [(each.name, each.strength, each.file) for each in found.failures] == [
        (name, strength, broken.name) for name in ("short", "long") for strength in (1.0, 2.0)
    ]
    assert all("not a readable image" in each.reason for each in found.failures)
    for retry_failed, tried in ((False, 0), (True, 4)):
        told = Told()
        compare_recipes(settings, told.telemetry(), retry_failed=retry_failed)
        assert (len(told.done), len(told.failed)) == (0, tried)


def test_a_run_of_which_all_images_failed_says_so(settings: ComparisonSettings, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(settings.images, images)
    for path in images.iterdir():
        path.write_bytes(path.read_bytes()[:200])
    compared = compare_recipes(replace(settings, images=images))
    with pytest.raises(RunError, match=r"no image was attacked by all of .*short@1, .*; attnshift status says"):
        measure_comparison(compared.runs, compared.judges, [0.9])
    with pytest.raises(RunError, match=r"all images of .*short@1 failed; attnshift status .*short@1 says why"):
        evaluate_run(compared.runs["short"][1.0], [JUDGE])


def test_within_a_budget_each_recipe_runs_once_for_each_seed(settings: ComparisonSettings) -> None:
    """One of them cannot run without a budget at all."""
    pgd = Entrant("pgd", load_any("pgd", ["baseline.steps=1"]), budgets=("ssim=0.9",), seeds=2)
    alma = Entrant("alma_budget", load_any("alma_budget", ["baseline.steps=2"]), budgets=("ssim=0.9",))
    compared = compare_recipes(replace(settings, entrants=(alma, pgd), limit=1))
    names = {path.name for path in (settings.out / "runs").iterdir()}
    assert names == {"alma_budget@ssim=0.9", "pgd@ssim=0.9", "pgd@ssim=0.9,seed+1"}
    first, second = compared.runs_by_budget["pgd"]["ssim=0.9"]
    assert [store.spec().recipe.seed for store in (first, second)] == [0, 1]
    for store in (first, second, *compared.runs_by_budget["alma_budget"]["ssim=0.9"]):
        (kept,) = [row["ssim"] for row in records(store, "quality") if row["arm"] == "attack"]
        assert 0.9 <= kept <= 1
    assert pngs(first.folder) != pngs(second.folder)


def test_a_budget_leaves_no_strength_to_choose() -> None:
    with pytest.raises(UserError, match="quick@2: within a budget no strength is chosen; write quick alone"):
        read_entrants(["quick@2"], (), ["ssim=0.9"])
