"""A judge that is shown the images wrongly is refused before anything is written; the lab's own judges never are."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier
from attnshift.cli import app
from attnshift.data.images import write_png
from attnshift.errors import RunError
from attnshift.judging.verdicts import evaluate_run
from attnshift.lab.weights import classifier_folder
from attnshift.results.arms import ARMS
from attnshift.results.store import Store
from lab_scenes import rendered
from small_runs import contents, planned
from tables import records, write_records
from tiers import fast_first

COUNT = 32


@pytest.fixture(scope="module")
def lab_run(finished: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run on lab images in which every arm shows the clean image: what an attack does has no say here."""
    spec = finished.spec().model_copy(update={"surrogates": ("lab:mobilevit",), "pipeline": "lab", "size": 64})
    store = Store.start(tmp_path_factory.mktemp("lab") / "run", spec, planned(*map(str, range(COUNT))))
    for index, image in enumerate(rendered(range(COUNT)).images):
        for arm in ARMS:
            write_png(store.image_path(str(index), arm), image, {})
    unused = {
        "file": "",
        "class_name": "",
        "target": None,
        "target_name": "",
        "shares": [],
        "effective_models": 1.0,
        "seconds": 1.0,
    }
    write_records(store, "results", [{"id": str(index), "label": index % 10} | unused for index in range(COUNT)])
    return store


@pytest.fixture
def store(lab_run: Store, tmp_path: Path) -> Store:
    """A copy, to be judged."""
    return Store.open(shutil.copytree(lab_run.folder, tmp_path / "run"))


def wrapped(name: str, network: nn.Module | None = None, **changes: Any) -> Classifier:
    """The lab's classifier ``name`` from Python, shown images in another way."""
    lab = load_classifier(f"lab:{name}")
    own = lab.preprocessing
    usual: dict[str, Any] = {
        "size": own.size,
        "mean": own.mean,
        "std": own.std,
        "interpolation": own.interpolation,
        "class_names": lab.class_names,
    }
    return Classifier.wrap(network or lab.network, f"my {name}", **(usual | changes))


class Rolled(nn.Module):
    """Another class order: every logit one place further."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).roll(1, 1)


class Coarse(Rolled):
    """An honest weak classifier: it sees ``cells`` x ``cells`` cells."""

    def __init__(self, network: nn.Module, cells: int) -> None:
        super().__init__(network)
        self.cells = cells

    def forward(self, images: Tensor) -> Tensor:
        small = nn.functional.adaptive_avg_pool2d(images, self.cells)
        return self.network(nn.functional.interpolate(small, images.shape[-2:], mode="bilinear"))


def refusal(store: Store, judge: Any) -> str:
    before = contents(store.folder)
    with pytest.raises(RunError) as caught:
        evaluate_run(store, [judge])
    assert contents(store.folder) == before
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "set `min_clean_accuracy` to 0" in message
    return message


def accuracy(store: Store, name: str) -> float:
    rows = [row for row in records(store, "verdicts") if row["classifier"] == name and row["arm"] == "clean"]
    assert len(rows) == COUNT
    return sum(row["correct"] for row in rows) / COUNT


IMAGENET, SWAPPED = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.229, 0.224, 0.225), (0.485, 0.456, 0.406))


@pytest.mark.parametrize(
    ("name", "statistics", "cause"),
    fast_first(
        [
            ("robust", SWAPPED, "with mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225): its mean and std"),
            ("resnet", ((0.0,) * 3, (1.0,) * 3), "with mean (0.485, 0.456, 0.406)"),
            ("byobnet", ((127.5,) * 3, (127.5,) * 3), "with mean 0.5 and std 0.5: its mean and std"),
        ]
    ),
)
def test_a_wrong_normalisation_is_found_and_named(store: Store, name: str, statistics: Any, cause: str) -> None:
    mean, std = statistics
    message = refusal(store, wrapped(name, mean=mean, std=std))
    assert message.startswith(f"my {name} is right about ")
    assert cause in message


def test_a_wrong_class_order_is_refused(store: Store) -> None:
    message = refusal(store, wrapped("coatnet", Rolled(load_classifier("lab:coatnet").network)))
    assert message.startswith("my coatnet is right about 0 of 32 clean images and lab:mobilevit about ")
    assert "class order" in message


@pytest.mark.heavy
def test_so_is_a_classifier_for_tuning(store: Store) -> None:
    with pytest.raises(RunError, match="class order"):
        evaluate_run(store, [], [wrapped("coatnet", Rolled(load_classifier("lab:coatnet").network))])


@pytest.mark.heavy
def test_the_labs_own_judges_are_admitted(store: Store) -> None:
    names = ["lab:coatnet", "lab:byobnet", "lab:nfnet", "lab:robust"]
    assert evaluate_run(store, names) == ()
    assert all(accuracy(store, name) > 0.9 for name in names)


@pytest.mark.parametrize("cells", fast_first([8, 11]))
def test_honest_weak_judges_are_admitted(store: Store, cells: int) -> None:
    judge = wrapped("resnet", Coarse(load_classifier("lab:resnet").network, cells))
    assert evaluate_run(store, [judge]) == ()
    assert 0.15 < accuracy(store, judge.name) < 0.8


@pytest.mark.heavy
def test_a_judge_from_a_checkpoint_is_shown_the_architectures_size(store: Store) -> None:
    """The lab's resnet knows 64 pixels and ImageNet's statistics; its architecture states 160 pixels and a cut."""
    name = f"checkpoint:test_resnet@{classifier_folder('resnet') / 'model.safetensors'}"
    with pytest.raises(RunError, match=r"its preprocessing \(size, range, mean, std\) or its class order"):
        evaluate_run(store, [name], min_clean_accuracy=0.5)
    remarks = evaluate_run(store, [name], min_clean_accuracy=0)
    assert accuracy(store, name) < 0.3
    assert remarks == (), "chance among ten classes is not plainly wrong, and no usual normalisation helps"


@pytest.mark.heavy
def test_who_is_admitted_all_the_same_is_reported(store: Store) -> None:
    judge = wrapped("robust", mean=SWAPPED[0], std=SWAPPED[1])
    (remark,) = evaluate_run(store, [judge], min_clean_accuracy=0)
    assert "its mean and std are probably wrong" in remark
    assert accuracy(store, judge.name) < 0.8


def test_a_surrogate_is_reported_and_never_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(name: str) -> Classifier:
        classifier = load_classifier(name)
        return replace(classifier, network=Rolled(classifier.network)) if name == "lab:mobilevit" else classifier

    monkeypatch.setattr("attnshift.defences.names.load_classifier", loaded)
    (remark,) = evaluate_run(store, ["lab:coatnet"])
    assert remark.startswith("lab:mobilevit is right about 0 of 32 clean images and lab:coatnet about ")


@pytest.mark.heavy
def test_a_defence_that_costs_accuracy_has_no_wrong_normalisation(store: Store) -> None:
    assert evaluate_run(store, ["gaussian_blur+lab:robust"]) == ()


@pytest.mark.heavy
def test_on_the_command_line(store: Store, tmp_path: Path) -> None:
    folder = shutil.copytree(classifier_folder("resnet"), tmp_path / "rolled")
    weights = load((folder / "model.safetensors").read_bytes())
    save_file(
        weights | {key: weights[key].roll(1, 0) for key in ("fc.weight", "fc.bias")}, folder / "model.safetensors"
    )
    command = ["evaluate", str(store.folder), "--judge", f"timm:{folder}"]
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, RunError)
    admitted = CliRunner().invoke(app, [*command, "--min-clean-accuracy", "0"])
    assert admitted.exit_code == 0
    assert accuracy(store, f"timm:{folder}") == 0
    beyond = CliRunner().invoke(app, [*command, "--min-clean-accuracy", "2"])
    assert "must lie between 0 and 1" in str(beyond.exception)


@pytest.mark.heavy
def test_verdicts_do_not_depend_on_the_gate(store: Store) -> None:
    evaluate_run(store, ["lab:coatnet"], min_clean_accuracy=0)
    before = contents(store.folder)
    evaluate_run(store, ["lab:coatnet"], min_clean_accuracy=1)
    assert contents(store.folder) == before
    assert torch.is_grad_enabled()
