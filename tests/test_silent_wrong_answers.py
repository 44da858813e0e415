"""No silent wrong answers: input as people have it gets the right answer, or one line that says why not.

Each test is named by its row of the table of kinds that were tried.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import ExifTags, Image, ImageCms
from safetensors.torch import load, save_file
from torch import Tensor

from attnshift import LatentAttack, PixelAttack, load_pipeline, load_recipe
from attnshift.attack.method import Method
from attnshift.attack.remarks import idle_settings
from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier, in_one_order
from attnshift.classifiers.heads import check_head
from attnshift.classifiers.names import imagenet_names
from attnshift.data.datasets import Item, read_items
from attnshift.data.images import Framing, quantise, read_image, uncropped_size, write_png
from attnshift.data.references import fetch
from attnshift.errors import ImageError, LabelError, ModelError, RecipeError, RunError, UserError
from attnshift.execution.agreement import Agreement, measure_agreement, readable
from attnshift.execution.coordinate import attack_prepared
from attnshift.execution.prepare import prepare_run
from attnshift.execution.settings import check_settings
from attnshift.execution.validate import find_problems
from attnshift.execution.work import work_of
from attnshift.judging.verdicts import evaluate_run
from attnshift.lab.scenes import CLASSES
from attnshift.lab.weights import pipeline_folder as lab_weights
from attnshift.recipes.presets import preset_names
from attnshift.recipes.reading import load_latent_recipe
from attnshift.recipes.schema import BaselineRecipe
from attnshift.report.cropped import cropped_line
from attnshift.report.page import write_report
from attnshift.report.run_tables import run_data, run_tables
from attnshift.results.arms import ARMS
from attnshift.results.rows import ResultRow, VerdictRow
from attnshift.results.store import Store
from attnshift.sizes import Size
from attnshift.terminal import plural
from data.sources import picture, write_tar
from lab_scenes import rendered
from later import later
from pipelines import tiny_pipeline
from planted import edit_json
from small_runs import small_settings

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion

timm = later("timm")
models = later("timm.models")
transformers = later("transformers")
stable_diffusion = later("attnshift.diffusion.stable_diffusion")

LABELS = [3, 7]
LAB_NAMES = CLASSES


@pytest.fixture(scope="module")
def lab_images() -> Tensor:
    return quantise(rendered(LABELS).images)


@pytest.fixture(scope="module")
def on_pixels() -> PixelAttack:
    return PixelAttack(["lab:resnet"], load_recipe("mifgsm", ["baseline.steps=1"]))


SHORT = ("optimiser.iterations=1", "diffusion.denoising_steps=1", "diffusion.schedule_steps=4")


@pytest.fixture(scope="module")
def on_latents(backbone: StableDiffusion) -> LatentAttack:
    return LatentAttack(backbone, ["lab:resnet"], load_latent_recipe("quick", SHORT))


class Picked(torch.nn.Module):
    """Logits of ``network`` at the classes ``order``, as a network that was trained on them gives them."""

    def __init__(self, network: torch.nn.Module, order: Sequence[int]) -> None:
        super().__init__()
        self.network, self.order = network, list(order)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[:, self.order]


def picked(known: Classifier, order: Sequence[int], name: str = "mine:picked") -> Classifier:
    """A classifier that has the classes ``order`` of ``known`` alone, in that order, under their names."""
    return replace(
        known,
        name=name,
        network=Picked(known.network, order),
        classes=len(order),
        class_names=tuple(known.class_names[each] for each in order),
    )


@pytest.fixture
def store(finished: Store, tmp_path: Path) -> Store:
    """A copy of the finished run, to be judged. Its surrogate has the classes of ImageNet."""
    shutil.copytree(finished.folder, tmp_path / "run")
    return Store.open(tmp_path / "run")


JUDGE = "random:test_convnext"


def write_rendered(folder: Path, text: str) -> Path:
    """The lab's first three images, a ball, a die and a donut, and a label file; ``text`` has a row for each."""
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(quantise(rendered(range(3)).images)):
        write_png(folder / f"{number}.png", image, {})
    (folder / "labels.csv").write_text(text)
    return folder


def agreement_of(folder: Path, **others: Any) -> Agreement:
    items = list(read_items(folder, folder / "labels.csv", LAB_NAMES, 10, **others))
    return measure_agreement([load_classifier("lab:resnet")], readable(items, Framing(Size.of(64))), "cpu")


def test_row_01_labels_that_count_from_1(tmp_path: Path) -> None:
    folder = write_rendered(tmp_path / "right", "file,label\n0.png,0\n1.png,1\n2.png,2\n")
    assert not agreement_of(folder).complaint
    folder = write_rendered(tmp_path / "shifted", "file,label\n0.png,1\n1.png,2\n2.png,3\n")
    against = agreement_of(folder).complaint
    assert against.startswith("labels seem to count from 1: with label - 1 the surrogates are right about 100 %")


def test_row_01_class_folders_from_1(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / str(number)).mkdir()
        image = quantise(rendered([number - 1]).images)[0]
        write_png(tmp_path / str(number) / "a.png", image, {})
    items = list(read_items(tmp_path, None, LAB_NAMES, 10))
    assert [item.label for item in items] == [1, 2, 3]
    found = measure_agreement([load_classifier("lab:resnet")], readable(items, Framing(Size.of(64))), "cpu")
    assert "labels seem to count from 1" in found.complaint


def test_row_01_labels_that_somebody_admits_are_said_in_the_report(tmp_path: Path) -> None:
    folder = write_rendered(tmp_path / "shifted", "file,label\n0.png,1\n1.png,2\n2.png,3\n")
    settings = replace(
        small_settings(folder, lab_weights(), tmp_path / "run", surrogates=("lab:resnet",)),
        images=folder,
        recipe=load_recipe("pgd", ["baseline.steps=1"]),
    )
    with pytest.raises(LabelError, match=r"labels\.csv: labels seem to count from 1: .*, or set `accept_labels`"):
        prepare_run(settings)
    prepared = prepare_run(replace(settings, accept_labels=True))
    (note,) = prepared.notes
    assert note.startswith(f"admitted: {folder / 'labels.csv'}: labels seem to count from 1")
    store = attack_prepared(prepared, settings.out)
    assert f"admitted: {store.spec().admitted[0]}" == note
    assert "Admitted when the run began: " in write_report(store).read_text()
    assert run_data(store)["admitted"] == list(store.spec().admitted)


def test_row_01_a_class_name_that_contradicts_the_label(tmp_path: Path) -> None:
    folder = write_rendered(tmp_path / "a", "file,label,class_name\n0.png,1,ball\n1.png,1,Die\n2.png,2,tyre\n")
    complaints: list[UserError] = []
    read = partial(read_items, folder, folder / "labels.csv", LAB_NAMES, 10, problems=complaints.append)
    items = list(read(checked_names=LAB_NAMES))
    assert [item.class_name for item in items] == ["Die", "tyre"], "a name of no class may be a word for the prompt"
    (complaint,) = map(str, complaints)
    assert "labels.csv line 2: class name 'ball' contradicts label 1: for the surrogates class 1 is 'die'" in complaint
    assert len(list(read())) == 3, "accepted"


def test_row_01_attack_and_python_count_no_image_that_was_wrong_before(on_pixels: PixelAttack) -> None:
    images = quantise(rendered((0, 1)).images)
    result = on_pixels(images, [0, 2])
    assert result.known.tolist() == [[True, False]]
    assert bool(result.margins[0, 1] < 0)
    assert not bool(result.fooled[1])


def test_row_02_surrogates_with_the_same_names_in_another_order() -> None:
    lab = load_classifier("lab:resnet")
    other = picked(lab, range(lab.classes - 1, -1, -1))
    first, second = in_one_order([lab, other])
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert first is lab
    assert (second.name, second.fingerprint()) == (other.name, other.fingerprint())
    assert second.class_names == lab.class_names
    assert torch.equal(second(images), lab(images))


def test_row_02_surrogates_that_know_other_classes() -> None:
    lab = load_classifier("lab:resnet")
    other = replace(lab, name="mine", class_names=("axolotl", *lab.class_names[1:]))
    with pytest.raises(ModelError, match=f"lab:resnet knows '{lab.class_names[0]}', and mine has no class of that"):
        in_one_order([lab, other])


def test_row_02_a_judge_with_the_same_names_in_another_order(store: Store) -> None:
    judge = load_classifier(JUDGE)
    evaluate_run(store, [judge, picked(judge, range(999, -1, -1))], min_clean_accuracy=0)
    rows = store.table(VerdictRow)
    straight, turned = (
        [replace(row, classifier="") for row in rows if row.classifier == name] for name in (JUDGE, "mine:picked")
    )
    assert len(straight) == 3 * len(ARMS)
    # The number may be another one where several classes have a name, as ``maillot``.
    assert [(row.predicted_name, row.correct, row.success) for row in turned] == [
        (row.predicted_name, row.correct, row.success) for row in straight
    ]
    assert [row.true_probability for row in turned] == pytest.approx([row.true_probability for row in straight])


def test_row_02_a_judge_with_fewer_classes_judges_the_images_of_its_classes(store: Store) -> None:
    first, *others = store.table(ResultRow)
    store.write_table(ResultRow, [first, *(replace(row, label=first.label - 1) for row in others)])
    rows, theirs = [first, *others], [first.id]
    judge = picked(load_classifier(JUDGE), [0, 1, 2, first.label])
    lines = evaluate_run(store, [judge], min_clean_accuracy=0)
    assert f"mine:picked judges {len(theirs)} of {len(rows)} images" in "\n".join(lines)
    assert {row.id for row in store.table(VerdictRow) if row.classifier == "mine:picked"} == set(theirs)
    table = run_tables(store)[0]
    judged = {str(row[0]): row[table.columns.index("judged")] for row in table.rows}
    assert judged["mine:picked"] == str(len(theirs))
    # Verdicts that are kept from an earlier evaluation stay as they are.
    assert evaluate_run(store, []) == ()
    assert {row.id for row in store.table(VerdictRow) if row.classifier == "mine:picked"} == set(theirs)


def test_row_02_a_judge_with_more_classes(store: Store) -> None:
    judge = load_classifier(JUDGE)
    network = torch.nn.Sequential(judge.network, torch.nn.ConstantPad1d((1, 0), 1e3))
    more = replace(judge, name="mine:more", network=network, classes=1001, class_names=("axolotl", *judge.class_names))
    evaluate_run(store, [more], min_clean_accuracy=0)
    rows = [row for row in store.table(VerdictRow) if row.classifier == "mine:more"]
    assert {(row.predicted, row.predicted_name, row.correct) for row in rows} == {(1000, "axolotl", False)}


def test_row_02_a_judge_that_has_none_of_the_names(store: Store) -> None:
    judge = replace(load_classifier(JUDGE), name="mine", class_names=tuple(f"thing {each:x}a" for each in range(1000)))
    with pytest.raises(ModelError, match=r"mine has none of the classes: it knows 'thing 0a', .* classes are 'tench'"):
        evaluate_run(store, [judge])
    with pytest.raises(RunError, match="has no class called"):
        evaluate_run(store, [picked(load_classifier(JUDGE), [0, 1])])


def test_row_02_a_judge_without_names_and_with_another_number_of_classes(store: Store) -> None:
    judge = load_classifier(JUDGE)
    network = torch.nn.Sequential(judge.network, torch.nn.ConstantPad1d((1, 0), 0.0))
    with pytest.raises(RunError, match=r"1001 classes, the surrogates have 1000, and names are missing"):
        evaluate_run(store, [replace(judge, name="mine", network=network, classes=1001, class_names=())])


def write_named(path: Path, names: Sequence[str], label: str = "label", image: str = "image") -> Path:
    """A parquet file of three images with labels 0 to 2, whose schema names them as Hugging Face's datasets do."""
    table = pyarrow.table({image: [picture(seed) for seed in range(3)], label: [0, 1, 2]})
    features = {label: {"names": list(names), "_type": "ClassLabel"}, image: {"_type": "Image"}}
    stated = json.dumps({"info": {"features": features}})
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": stated}), path)
    return path


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("ball", "die", "donut"), [0, 1, 2]),
        (("die", "donut", "ball"), [1, 2, 0]),
        (("Donut, doughnut", "BALL", "die"), [2, 0, 1]),
        (("0", "1", "2"), [0, 1, 2]),
    ],
)
def test_row_03_names_in_the_schema_of_parquet_decide(
    tmp_path: Path, names: tuple[str, ...], labels: list[int]
) -> None:
    path = write_named(tmp_path / "a.parquet", names)
    items = list(read_items(path, None, LAB_NAMES, 10, checked_names=LAB_NAMES))
    assert [item.label for item in items] == labels
    assert [item.class_name for item in items] == [LAB_NAMES[label] for label in labels]


def test_row_03_names_that_no_class_has_are_refused(tmp_path: Path) -> None:
    path = write_named(tmp_path / "a.parquet", ("ball", "sphinx", "donut"))
    complaints: list[UserError] = []
    list(read_items(path, None, LAB_NAMES, 10, problems=complaints.append, checked_names=LAB_NAMES))
    assert [str(each) for each in complaints] == [
        f"{path} row 1: label 1 is 'sphinx' in the file, no class that the surrogates know; rename it, or set "
        "`accept_labels`"
    ]


def test_row_03_columns_of_cifar(tmp_path: Path) -> None:
    path = write_named(tmp_path / "a.parquet", ("die", "donut", "ball"), "fine_label", "img")
    items = list(read_items(path, None, LAB_NAMES, 10, checked_names=LAB_NAMES))
    assert [item.label for item in items] == [1, 2, 0]
    assert [fetch(item.image) for item in items] == [picture(seed) for seed in range(3)]


def timm_folder(folder: Path, classes: int = 4, **config: Any) -> Path:
    """A folder in timm's format, with random weights and no names but those of ``config``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("test_resnet", num_classes=classes)
    models.save_for_hf(network, folder, safe_serialization=True)
    edit_json(folder / "config.json", **config)
    return folder


SYNSETS = {"n01440764": "tench, Tinca tinca", "n01443537": "goldfish", "n02012849": "crane", "n03126707": "crane"}


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"label_names": {"0": "ball", "1": "mug", "2": "donut", "3": "tree"}}, ("ball", "mug", "donut", "tree")),
        ({"label_names": {"3": "tree", "1": "mug"}}, ("", "mug", "", "tree")),
        ({"label_names": {"tree": 3, "mug": 1}}, ("", "mug", "", "tree")),
        (
            {"label_names": [*SYNSETS], "label_descriptions": {key: f"the {value}" for key, value in SYNSETS.items()}},
            ("the tench", "the goldfish", "the crane", "the crane"),
        ),
        ({"label_names": [*SYNSETS]}, ("tench", "goldfish", "crane", "crane")),
        ({"label_names": ["/m/01", "/m/02", "/m/03", "ball"], "label_descriptions": {"/m/01": "mug"}},
         ("mug", "/m/02", "/m/03", "ball")),
    ],
    ids=["numbers", "gaps", "the other way round", "descriptions", "synsets alone", "codes"],
)  # fmt: skip
def test_row_04_names_in_a_timm_folder(tmp_path: Path, config: dict[str, Any], names: tuple[str, ...]) -> None:
    assert load_classifier(f"timm:{timm_folder(tmp_path / 'model', **config)}").class_names == names


@pytest.mark.parametrize(
    ("label_names", "message"),
    [
        ({"4": "ball"}, "label_names names class 4, and the head has 4 classes from 0 on"),
        (["ball"], "label_names has 1 names, and the head has 4 classes"),
        ({"a": "b"}, "label_names must be a list of names, or an object from class number to name"),
        ("ball", "label_names must be a list of names"),
    ],
)
def test_row_04_names_that_cannot_be(tmp_path: Path, label_names: object, message: str) -> None:
    folder = timm_folder(tmp_path / "model", label_names=label_names)
    with pytest.raises(ModelError, match=message):
        load_classifier(f"timm:{folder}")


def test_row_05_a_thousand_classes_of_ones_own_have_no_names(tmp_path: Path) -> None:
    folder = timm_folder(tmp_path / "model", 1000)
    assert load_classifier(f"timm:{folder}").class_names == ()
    (folder / "class_names.txt").write_text("".join(f"thing {chr(97 + each % 26)} {each}\n" for each in range(1000)))
    assert load_classifier(f"timm:{folder}").class_names[1] == "thing b 1"
    (folder / "class_names.txt").write_text("imagenet-1k\n")
    assert load_classifier(f"timm:{folder}").class_names[0] == "tench"


def test_row_05_a_model_card_says_that_the_classes_are_imagenets(tmp_path: Path) -> None:
    folder = timm_folder(tmp_path / "model", 1000)
    (folder / "README.md").write_text("---\ntags:\n- timm\ndatasets:\n- imagenet-1k\n---\n# mine\n")
    assert load_classifier(f"timm:{folder}").class_names[0] == "tench"


def test_row_05_an_attack_without_names_asks_for_them(backbone: StableDiffusion) -> None:
    nameless = replace(load_classifier("random:test_resnet"), class_names=())
    recipe = load_latent_recipe("quick", ["terms.contrast.weight=1.0"])
    attack = LatentAttack(backbone, [nameless], recipe)
    with pytest.raises(RecipeError, match=r"one a line, in class_names\.txt beside the weights"):
        attack(torch.rand(1, 3, 64, 64), [0], ["mug"])


def test_row_06_a_timm_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = timm_folder(tmp_path / "model", label_names=["ball", "mug", "donut", "tree"])
    monkeypatch.setattr(
        "attnshift.classifiers.timm_source.hf_hub_download", lambda model, file, **_: str(folder / file)
    )
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    classifier = load_classifier("timm:hf-hub:somebody/something")
    assert classifier.name == "timm:hf-hub:somebody/something"
    assert classifier.class_names == ("ball", "mug", "donut", "tree")


def test_row_06_the_hub_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"cannot load 'timm:hf-hub:somebody/nothing': ") as caught:
        load_classifier("timm:hf-hub:somebody/nothing")
    assert len(str(caught.value).splitlines()) == 1
    monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("timm asks a dozen times"))
    with pytest.raises(ModelError, match=r"cannot load 'resnet50': the Hugging Face hub gives no timm/resnet50"):
        load_classifier("timm:resnet50")
    with pytest.raises(ModelError, match="hf-hub:somebody/nothing is a model of the hub"):
        load_classifier("timm:somebody/nothing")


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "_orig_mod.module."])
def test_row_06_keys_behind_a_prefix(tmp_path: Path, prefix: str) -> None:
    weights = timm.create_model("test_resnet", num_classes=4).state_dict()
    save_file(weights, tmp_path / "plain.safetensors")
    save_file({f"{prefix}{key}": value for key, value in weights.items()}, tmp_path / "wrapped.safetensors")
    plain, wrapped = (
        load_classifier(f"checkpoint:test_resnet@{tmp_path / name}.safetensors") for name in ("plain", "wrapped")
    )
    assert plain.fingerprint() == wrapped.fingerprint()
    folder = timm_folder(tmp_path / "model")
    plain = load_classifier(f"timm:{folder}")
    content = load((folder / "model.safetensors").read_bytes())
    save_file({f"{prefix}{key}": value for key, value in content.items()}, folder / "model.safetensors")
    assert load_classifier(f"timm:{folder}").fingerprint() == plain.fingerprint()


@pytest.mark.parametrize(("folder", "label"), [("n01440764", 0), ("n02012849", 134), ("n03126707", 517)])
def test_row_06_folders_named_by_synset(tmp_path: Path, folder: str, label: int) -> None:
    names = imagenet_names()
    (tmp_path / folder).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / folder / "a.png")
    (item,) = read_items(tmp_path, None, names, len(names))
    assert (item.label, item.class_name) == (label, names[label])


def test_row_06_a_folder_whose_name_several_classes_have(tmp_path: Path) -> None:
    for name in ("crane", "n01440764"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    with pytest.raises(LabelError, match="subfolder 'crane' is the name of several classes"):
        list(read_items(tmp_path, None, imagenet_names(), 1000))


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["class_0", "class_1", "class_2", "class_3"], ()),
        (["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"], ()),
        (["0", "1", "2", "3"], ()),
        (["apple_pie", " ball\n", "red  mug", "LABEL_3"], ("apple pie", "ball", "red mug", "")),
        (["n02085620-Chihuahua", "001.Black_footed_Albatross", "747", "DC-3"],
         ("Chihuahua", "Black footed Albatross", "747", "DC-3")),
    ],
    ids=str,
)  # fmt: skip
def test_row_07_names_that_are_no_words(given: list[str], names: tuple[str, ...]) -> None:
    network = timm.create_model("test_resnet", num_classes=4)
    assert Classifier.wrap(network, "mine", 64, (0.5,) * 3, (0.5,) * 3, class_names=given).class_names == names


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"problem_type": "multi_label_classification"}, "a multi-label head"),
        ({"problem_type": "regression"}, "a regression head"),
        ({"pretrained_cfg": {"multi_label": True}}, "a multi-label head"),
        ({"loss": "BCE"}, "a sigmoid head"),
        ({"num_labels": 1}, "a head with one output"),
        ({"id2label": {"0": "beauty"}}, "a head with one output"),
    ],
    ids=str,
)
def test_row_07_heads_whose_largest_logit_is_no_answer(config: dict[str, Any], kind: str) -> None:
    with pytest.raises(ModelError, match=f"mine has {kind}"):
        check_head("mine", config)
    check_head("mine", {"problem_type": "single_label_classification", "id2label": {"0": "a", "1": "b"}})


def test_row_07_a_multi_label_model_is_refused(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], embedding_size=8, num_labels=3)
    config.problem_type = "multi_label_classification"
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has a multi-label head"):
        load_classifier(f"huggingface:{tmp_path}")


def listed(folder: Path, text: str, labels: str = "labels.csv", count: int = 3) -> tuple[list[Item], list[str]]:
    """Items and complaints of small pictures 1.png, 2.png, … with a label file."""
    for number in range(1, count + 1):
        (folder / f"{number}.png").write_bytes(picture(number))
    (folder / labels).write_text(text)
    complaints: list[UserError] = []
    items = list(read_items(folder, folder / labels, LAB_NAMES, 10, problems=complaints.append))
    return items, [str(each) for each in complaints]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("file,label,class_name", "2.png,1,tench, Tinca tinca"),
        ("file,label,class_name,target", "2.png,1,tench, house,5"),
        ("file;label;class_name", "2.png;1;tench; Tinca tinca"),
    ],
)
def test_row_08_a_row_that_is_longer_than_its_header(tmp_path: Path, header: str, row: str) -> None:
    short = "1.png;0;ball" if ";" in header else "1.png,0,ball"
    items, complaints = listed(tmp_path, f"{header}\n{short}\n{row}\n")
    assert [item.file for item in items] == ["1.png"]
    (complaint,) = complaints
    assert "labels.csv line 3: " in complaint
    assert 'put quotes around a name that holds the separator, as in "tench, Tinca tinca"' in complaint


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("filename,label,targeted_label\n1.png,0,3\n2.png,1,4\n10.png,2,5\n", [3, 4, 5]),
        ("ImageId,URL,TrueLabel,TargetClass\n1,x,1,4\n2,x,2,5\n10,x,3,6\n", [3, 4, 5]),
        ("file;label\n1.png;0\n2.png;1\n10.png;2\n", [None] * 3),
        ("file\tlabel\n1.png\t0\n2.png\t1\n10.png\t2\n", [None] * 3),
        ("file,label\n1.png,ball\n2.png,Die\n10.png,donut\n", [None] * 3),
    ],
)
def test_row_08_known_layouts(tmp_path: Path, text: str, targets: list[int | None]) -> None:
    items, complaints = listed(tmp_path, text, count=10)
    assert not complaints
    assert [(item.file, item.label) for item in items] == [("1.png", 0), ("2.png", 1), ("10.png", 2)]
    assert [item.target for item in items] == targets
    ignored = list(read_items(tmp_path, tmp_path / "labels.csv", LAB_NAMES, 10, target="none"))
    assert [item.target for item in ignored] == [None] * 3


def test_row_08_labels_of_diffattack(tmp_path: Path) -> None:
    """One label a line, from 1, for the images in their natural order: 1, 2, …, 10."""
    text = "".join(f"{label}\n" for label in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
    items, complaints = listed(tmp_path, text, "labels.txt", count=10)
    assert not complaints
    expected = [(f"{number}.png", number - 1) for number in range(1, 11)]
    assert [(item.file, item.label) for item in items] == expected
    assert [(item.file, item.label) for item in read_items(tmp_path, None, LAB_NAMES, 10)] == expected
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "images" / "1.png").write_bytes(picture(1))
    (tmp_path / "set" / "labels.txt").write_text("1\n")
    assert [item.label for item in read_items(tmp_path / "set", None, LAB_NAMES, 10)] == [0]
    assert (
        "0 is out of range; in this layout classes are 1 to 10" in listed(tmp_path, "0\n" * 10, "labels.txt", 10)[1][0]
    )
    assert "9 labels, one a line, for 10 images" in listed(tmp_path, "1\n" * 9, "labels.txt", 10)[1][0]


@pytest.mark.parametrize(
    ("cls", "text", "label"),
    [
        ("2", '{"label": 2}', 2),
        ("2\n", '{"label": 2, "caption": "a donut"}', 2),
        ("2", '{"class_name": "donut"}', 2),
        ("donut", '{"label": 2}', 2),
        ("2", '{"label": 1}', None),
        ("donut", '{"label": 1}', None),
    ],
)
def test_row_14_samples_with_cls_and_json(tmp_path: Path, cls: str, text: str, label: int | None) -> None:
    path = write_tar(tmp_path / "a.tar", {"0.png": picture(0), "0.cls": cls.encode(), "0.json": text.encode()})
    complaints: list[UserError] = []
    items = list(read_items(path, None, LAB_NAMES, 10, problems=complaints.append, checked_names=LAB_NAMES))
    assert [item.label for item in items] == ([] if label is None else [label])
    assert len(complaints) == (label is None)
    if label is None:
        assert "a.tar sample 0: " in str(complaints[0])


def copied(source: Path, folder: Path, part: str = "", **values: object) -> Path:
    """A copy of the pipeline ``source``, with ``values`` in the configuration ``part``."""
    shutil.copytree(source, folder)
    if part:
        edit_json(folder / part, **values)
    return folder


SCHEDULER = "scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (
            SCHEDULER,
            {"prediction_type": "v_prediction"},
            r"states the prediction type v_prediction, and its outputs are those of epsilon; correct prediction_type",
        ),
        (
            "vae/config.json",
            {"scaling_factor": 0.18215},
            r"spread too little; correct scaling_factor in vae/config\.json, which should be about \d",
        ),
    ],
    ids=["prediction type", "scaling factor"],
)
def test_row_09_a_pipeline_that_misstates_itself_is_refused_on_the_users_images(
    photos: Path, tmp_path: Path, part: str, values: dict[str, object], message: str
) -> None:
    wrong = copied(lab_weights(), tmp_path / "wrong", part, **values)
    settings = small_settings(photos, wrong, tmp_path / "run")
    with pytest.raises(ModelError, match=f"{message}.*; mend it, or set `accept_pipeline`") as caught:
        prepare_run(settings)
    admitted = prepare_run(replace(settings, accept_pipeline=True))
    line = str(caught.value).removesuffix("; mend it, or set `accept_pipeline`")
    assert admitted.worker.spec.admitted == (line,)
    assert f"admitted: {line}" in admitted.notes
    assert admitted.worker.spec.digest == admitted.worker.spec.model_copy(update={"admitted": ()}).digest


def test_row_09_a_right_pipeline_is_let_through_and_a_random_one_is_named(
    photos: Path, pipeline_folder: Path, tmp_path: Path
) -> None:
    right, drawn = (prepare_run(small_settings(photos, each, tmp_path)) for each in (lab_weights(), pipeline_folder))
    random = "random:test_resnet has random weights, whose answers say nothing about the images"
    assert right.notes == (random,)
    classifier, pipeline = drawn.notes
    assert classifier == random
    assert f"the pipeline {pipeline_folder} predicts no noise at all, as networks with random weights do" in pipeline


@pytest.mark.parametrize(
    "scheduler",
    [
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0},
        {"_class_name": "EDMEulerScheduler", "prediction_type": "epsilon", "sigma_data": 0.5},
        {"_class_name": "CMStochasticIterativeScheduler", "sigma_min": 0.002, "sigma_max": 80.0},
        {"_class_name": "DDIMScheduler", "prediction_type": "epsilon", "num_train_timesteps": 1000},
    ],
    ids=["flow", "EDM", "consistency", "epsilon"],
)
def test_row_10_betas_that_nobody_states_are_not_made_up(
    pipeline_folder: Path, tmp_path: Path, scheduler: dict[str, object]
) -> None:
    folder = copied(pipeline_folder, tmp_path / "pipeline")
    (folder / SCHEDULER).write_text(json.dumps(scheduler), encoding="utf-8")
    with pytest.raises(ModelError, match=rf"states no beta_schedule \('{scheduler['_class_name']}'\)"):
        load_pipeline(str(folder))


def test_row_10_betas_that_the_file_states_are_used(pipeline_folder: Path, tmp_path: Path) -> None:
    stated = {"_class_name": "EDMEulerScheduler", "beta_start": 0.001, "beta_end": 0.02, "beta_schedule": "linear"}
    folder = copied(
        pipeline_folder, tmp_path / "pipeline", "model_index.json", scheduler=["diffusers", "EDMEulerScheduler"]
    )
    (folder / SCHEDULER).write_text(json.dumps(stated), encoding="utf-8")
    assert load_pipeline(str(folder)).noise_schedule(20, 5).levels[-1] == pytest.approx(1 - 0.001)


def test_row_11_a_denoiser_that_wants_its_guidance_is_refused(pipeline_folder: Path, tmp_path: Path) -> None:
    distilled = copied(pipeline_folder, tmp_path / "pipeline", "unet/config.json", time_cond_proj_dim=256)
    with pytest.raises(
        ModelError, match=r"time_cond_proj_dim is 256: .* as latent consistency models do; .* the class Late"
    ):
        load_pipeline(str(distilled))
    plain = copied(
        pipeline_folder, tmp_path / "plain", "model_index.json", _class_name="LatentConsistencyModelPipeline"
    )
    with pytest.raises(ModelError, match=r"time_cond_proj_dim is None; latent consistency models .* told their guid"):
        load_pipeline(str(plain))


def test_row_11_weights_that_no_module_takes_are_refused_by_name(pipeline_folder: Path, tmp_path: Path) -> None:
    folder = copied(pipeline_folder, tmp_path / "pipeline")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    lora = {f"mid_block.lora.{at}.weight": torch.zeros(2) for at in range(4)}
    save_file(load(file.read_bytes()) | lora, file)
    with pytest.raises(ModelError, match=r"does not take: mid_block\.lora\.0\.weight, .*\(4 in all\); merge a LoRA"):
        load_pipeline(str(folder))


def test_row_12_a_sharded_variant_is_loaded_and_one_of_several_is_chosen(tmp_path: Path) -> None:
    for variant in ("fp16", "non_ema"):
        tiny_pipeline(size=64).save_pretrained(tmp_path, variant=variant, max_shard_size="30KB")
    assert (tmp_path / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json").is_file()
    with pytest.raises(ModelError, match=r"in the variants fp16 and non_ema; choose one .* FOLDER,variant=fp16"):
        load_pipeline(str(tmp_path))
    assert (
        load_pipeline(f"{tmp_path},variant=fp16").fingerprint()
        == stable_diffusion.StableDiffusion(tiny_pipeline(size=64), "tiny").fingerprint()
    )


@pytest.mark.parametrize("option", ["dual_cross_attention", "only_cross_attention"])
def test_row_13_attention_of_another_kind_is_refused_in_a_line(
    pipeline_folder: Path, tmp_path: Path, option: str
) -> None:
    other = copied(pipeline_folder, tmp_path / "pipeline", "unet/config.json", **{option: True})
    with pytest.raises(ModelError, match=f"{option} is True; the attention of such denoisers cannot be read"):
        load_pipeline(str(other))


def test_row_13_a_device_that_computes_nothing_is_refused(photos: Path, pipeline_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`device` is meta, which cannot be used .*; use cpu or cuda"):
        check_settings(small_settings(photos, pipeline_folder, tmp_path, device="meta"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([3.0, 7.9]), "labels are float32; give whole numbers"),
        (numpy.array([3.0, 7.0]), "labels are float64; give whole numbers"),
        ([3, 7.5], "labels are float; give whole numbers"),
        ([torch.tensor(3.5), torch.tensor(7)], "labels are float32; give whole numbers"),
        (torch.tensor([True, False]), "labels are bool; give whole numbers"),
        (torch.eye(10)[LABELS], r"labels have shape \(2, 10\), as one-hot rows have; .*labels\.argmax\(1\)"),
        (torch.eye(10).long()[LABELS].numpy(), r"as one-hot rows have; .*labels\.argmax\(1\)"),
        ([[0, 1], [1, 0]], "not one-hot rows"),
        (list(torch.eye(10)[LABELS]), "not one-hot rows"),
        (torch.tensor([[3], [7]]), r"labels have shape \(2, 1\); .*labels\.flatten\(\)"),
        (torch.tensor(3), r"labels have shape \(\); give class numbers \[batch\]"),
        (["mug", "tree"], "labels hold 'mug'; give class numbers from 0, and names in class_names"),
        ("37", "labels are a str; give one class number for each image"),
        (3, "labels are a int; give one class number for each image"),
        ([3], "2 images and 1 label; give every image one"),
        ([3, 10], "image 1: label 10 is out of range; the surrogates have classes 0 to 9"),
        ([-1, 7], "image 0: label -1 is out of range"),
    ],
)
def test_row_15_labels_that_are_no_class_numbers(
    on_pixels: PixelAttack, lab_images: Tensor, labels: object, message: str
) -> None:
    with pytest.raises(LabelError, match=f"^{message}" if message[0] in "li2" else message) as caught:
        on_pixels(lab_images, labels)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images[:0], r"images have shape \(0, 3, 64, 64\), an empty batch; give at least one image"),
        (lambda images: images.permute(0, 2, 3, 1), r"with the channels last; .*images\.permute\(0, 3, 1, 2\)"),
        (lambda images: images.permute(0, 2, 3, 1).numpy(), r"images\.permute\(0, 3, 1, 2\)"),
        (lambda images: images[0], r"as a single image has; add the batch: images\[None\]"),
        (lambda images: images[:, :1], "repeat the grey channel"),
        (lambda images: images[:, [0, 1, 2, 0]], "leave alpha out"),
        (lambda images: (images * 255).byte(), r"images are uint8; .*images\.float\(\) / 255"),
        (lambda images: (images * 255).byte().numpy(), "images are uint8"),
        (lambda images: images * 255, "divide 8-bit values by 255"),
        (lambda images: (images - 0.5) / 0.25, "undo the normalisation"),
        (lambda images: images / 0, "not finite"),
        (lambda images: list(images), r"images are a list of tensors; give one tensor: torch\.stack\(images\)"),
        (lambda images: ["a.png", "b.png"], "images are a list; give a tensor or a NumPy array"),
        (lambda images: numpy.array(["a.png", "b.png"]), "images are an array of <U5"),
        (lambda images: None, "images are a NoneType"),
    ],
)
def test_row_15_images_that_are_none(
    on_pixels: PixelAttack,
    on_latents: LatentAttack,
    lab_images: Tensor,
    change: Callable[[Tensor], object],
    message: str,
) -> None:
    for attack in (on_pixels, on_latents):
        with pytest.raises(ImageError, match=message) as caught:
            attack(change(lab_images), LABELS)  # type: ignore[operator]
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images.double(),
        lambda images: images.numpy(),
        lambda images: images.double().numpy(),
        lambda images: images.numpy()[:, :, ::-1, ::-1][:, :, ::-1, ::-1],
        lambda images: images.clone().requires_grad_(),
        lambda images: images.requires_grad_(False).contiguous(memory_format=torch.channels_last),
    ],
)
def test_row_15_images_with_an_obvious_meaning(
    on_pixels: PixelAttack, lab_images: Tensor, change: Callable[[Tensor], object]
) -> None:
    expected = on_pixels(lab_images, LABELS)
    found = on_pixels(change(lab_images), LABELS)  # type: ignore[arg-type]
    assert torch.equal(found.images, expected.images)
    assert found.images.dtype == torch.float32
    assert not found.images.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_row_15_images_of_half_precision_are_attacked_as_they_are(
    on_pixels: PixelAttack, lab_images: Tensor, dtype: torch.dtype
) -> None:
    found = on_pixels(lab_images.to(dtype), LABELS)
    assert torch.equal(found.images, on_pixels(lab_images.to(dtype).float(), LABELS).images)


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor(LABELS, dtype=torch.uint8),
        numpy.array(LABELS),
        numpy.array(LABELS, dtype=numpy.int32),
        tuple(LABELS),
        [numpy.int64(3), numpy.int64(7)],
        list(torch.tensor(LABELS)),
    ],
)
def test_row_15_labels_with_an_obvious_meaning(on_pixels: PixelAttack, lab_images: Tensor, labels: object) -> None:
    found = on_pixels(lab_images, labels)  # type: ignore[arg-type]
    assert torch.equal(found.images, on_pixels(lab_images, LABELS).images)


def test_row_15_inference_mode_around_the_call(
    on_pixels: PixelAttack, on_latents: LatentAttack, lab_images: Tensor
) -> None:
    for attack in (on_pixels, on_latents):
        expected = attack(lab_images, LABELS)
        with torch.inference_mode():
            made = lab_images + 0
            found = attack(made, LABELS)
        assert made.is_inference()
        assert torch.equal(found.images, expected.images)
        with torch.no_grad():
            assert torch.equal(attack(lab_images, LABELS).images, expected.images)


def test_row_15_surrogates_that_are_none(lab_images: Tensor) -> None:
    with pytest.raises(UserError, match=r"^surrogates are \[\]; give a list with at least one"):
        PixelAttack([])
    with pytest.raises(UserError, match=r"^surrogates are 'lab:resnet'; give a list"):
        PixelAttack("lab:resnet")
    with pytest.raises(UserError, match=r"^`device` is nowhere, which cannot be used"):
        PixelAttack(["lab:resnet"], device="nowhere")
    with pytest.raises(UserError, match=r"^`device` is meta, which cannot be used"):
        PixelAttack(["lab:resnet"], device="meta")
    with pytest.raises(UserError, match=r"^0 images cannot be attacked together"):
        PixelAttack(["lab:resnet"], batch=0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("mug", "class_names is 'mug'; give a list with a name for each image"),
        (["mug", "tree", "die"], "class_names has 3 names for 2 images; it names the class of each image"),
    ],
)
def test_row_15_class_names_that_name_no_image(
    on_latents: LatentAttack, lab_images: Tensor, names: list[str], message: str
) -> None:
    with pytest.raises(LabelError, match=f"^{message}"):
        on_latents(lab_images, LABELS, names)


def test_row_15_masks_as_people_have_them(backbone: StableDiffusion, lab_images: Tensor) -> None:
    recipe = load_latent_recipe("quick", [*SHORT, "mask.source=given", "mask.paste_back=true"])
    attack = LatentAttack(backbone, ["lab:resnet"], recipe)
    masks = torch.zeros(2, 1, 64, 64)
    masks[..., 16:48, 16:48] = 1
    expected = attack(lab_images, LABELS, masks=masks).images
    for given in (masks.bool(), masks.numpy(), masks.double()):
        assert torch.equal(attack(lab_images, LABELS, masks=given).images, expected)
    for wrong, message in (
        (masks * 255, r"masks have values outside \[0,1\]; divide"),
        ((masks * 255).byte(), "masks are uint8"),
        (masks[:, 0], r"masks have shape \(2, 64, 64\); expected \(2, 1, 64, 64\)"),
        (None, "no mask was given"),
    ):
        with pytest.raises(UserError, match=message):
            attack(lab_images, LABELS, masks=wrong)


def write_images(folder: Path, *names: str, size: tuple[int, int] = (24, 24)) -> Path:
    """Images of one grey, each of another, so that no two are the same."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size, (10 * number, 90, 90)).save(folder / name)
    return folder


def items_with_masks(tmp_path: Path, file: str, *masks: str) -> list[Item]:
    images, covers = write_images(tmp_path / "images", file), write_images(tmp_path / "masks", *masks)
    labels = tmp_path / "labels.csv"
    labels.write_text(f"file,label\n{file},1\n")
    return list(read_items(images, labels, ("mug", "tree"), 2, masks=covers))


@pytest.mark.parametrize(
    ("file", "masks", "found"),
    [
        ("a.jpg", ["a.png"], "a.png"),
        ("a.jpg", ["a.PNG"], "a.PNG"),
        ("a.b.jpeg", ["a.b.png", "a.png"], "a.b.png"),
        ("a.jpg", ["a.jpg", "a.png"], "a.jpg"),
        ("deep/a.jpg", ["deep/a.png", "a.png"], "deep/a.png"),
    ],
)
def test_row_16_masks_are_found_by_the_name_before_the_ending(
    tmp_path: Path, file: str, masks: list[str], found: str
) -> None:
    (item,) = items_with_masks(tmp_path, file, *masks)
    assert item.mask is not None
    assert item.mask.location == str(tmp_path / "masks" / found)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (["a.png", "a.bmp"], r"the masks a\.png and a\.bmp both fit 'a\.jpg'; keep one in"),
        (["b.png"], r"masks/a\.jpg does not exist"),
    ],
)
def test_row_16_masks_that_are_missing_or_two(tmp_path: Path, masks: list[str], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        items_with_masks(tmp_path, "a.jpg", *masks)


def test_row_16_masks_of_class_folders_are_found_by_the_name_before_the_ending(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "0/a.jpg", "1/b.jpg")
    covers = write_images(tmp_path / "masks", "0/a.png", "1/b.png")
    items = list(read_items(images, None, ("mug", "tree"), 2, masks=covers))
    assert [item.mask and item.mask.location for item in items] == [str(covers / "0/a.png"), str(covers / "1/b.png")]


def test_row_16_a_lab_tiff_has_the_colours_that_it_had(tmp_path: Path) -> None:
    colours = Image.new("RGB", (24, 24), (200, 30, 60))
    colours.paste((20, 160, 90), (0, 0, 24, 12))
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(colours, srgb, lab, outputMode="LAB")
    assert converted is not None
    converted.save(tmp_path / "lab.tiff")
    found = 255 * read_image(tmp_path / "lab.tiff", 24)
    assert found[:, 20, 12].tolist() == pytest.approx([200, 30, 60], abs=2)
    assert found[:, 3, 12].tolist() == pytest.approx([20, 160, 90], abs=2)


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_row_16_modes_that_cannot_be_read_rightly_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (24, 24)).save(tmp_path / "a.tiff")
    with pytest.raises(ImageError, match="is not 8-bit; convert it to 8-bit RGB first"):
        read_image(tmp_path / "a.tiff", 24)


@pytest.mark.parametrize(
    ("given", "expected"),
    [((1, "image"), "1 image"), ((0, "image"), "0 images"), ((2, "class", "classes"), "2 classes")],
)
def test_row_16_counts_are_english(given: tuple[int, str], expected: str) -> None:
    assert plural(*given) == expected


@pytest.mark.parametrize(
    ("size", "orientation", "expected"),
    [((40, 30), 1, Size(30, 40)), ((40, 30), 6, Size(40, 30)), ((30, 30), 6, None)],
)
def test_what_is_cropped_is_known_without_decoding(
    size: tuple[int, int], orientation: int, expected: Size | None
) -> None:
    exif, encoded = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", size).save(encoded, "JPEG", exif=exif)
    assert uncropped_size(encoded.getvalue(), 64) == expected
    assert uncropped_size(encoded.getvalue()[:10], 64) is None
    shape = Size(*reversed(size)) if orientation == 1 else Size(*size)
    assert uncropped_size(encoded.getvalue(), Size(shape.rows * 3, shape.columns * 3)) is None


def test_images_that_are_not_square_are_said_before_the_attack_and_in_the_report(
    tmp_path: Path, pipeline_folder: Path
) -> None:
    write_images(tmp_path / "images", "wide.png", "wider.png", size=(80, 64))
    write_images(tmp_path / "images", "x.png", "square.png", size=(64, 64))
    (tmp_path / "labels.csv").write_text("file,label,class_name\nwide.png,1,mug\nwider.png,2,mug\nsquare.png,3,mug\n")
    settings = small_settings(tmp_path, pipeline_folder, tmp_path / "run", *SHORT)
    prepared, line = prepare_run(settings), "2 images of 3 are not square; the centre is cropped and attacked"
    assert line in prepared.remarks
    store = attack_prepared(prepared, settings.out)
    assert cropped_line(store) == "2 images of 3 were not square; the centre was attacked"
    assert cropped_line(store) in write_report(store).read_text()
    found: list[str] = []
    assert find_problems(settings, lambda error: pytest.fail(str(error)), found.append).usable == 3
    assert found == [line]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["mask.source=gradcam"], "mask.source is 'gradcam', but no term reads a mask and nothing is pasted back"),
        (["mask.source=gradcam", "mask.paste_back=true"], ""),
        (["mask.source=gradcam", "terms.frequency.weight=1.0"], ""),
        (["mask.source=gradcam", "mask.paste_back=true", "mask.refine=1"], "mask.refine cannot act"),
        (["mask.paste_back=true"], "mask.paste_back cannot act, since mask.source is 'none'"),
        (["interference.choose=text"], "interference.choose cannot act, since no term"),
        (["interference.choose=text", "terms.contrast.weight=1.0"], ""),
        (["prompt.template=a {} and a {interference}"], "{interference} in prompt.template cannot act"),
        (["prompt.interference_template=the {}"], "prompt.interference_template cannot act"),
        (["expectation.every=2"], "expectation.every cannot act, since expectation.draws is 1"),
        (["expectation.transforms.rotate.degrees=3.0"], "expectation.transforms cannot act"),
        (["expectation.transforms.rotate.degrees=3.0", "expectation.draws=2"], ""),
        (["classification.weight=0.0", "classification.momentum=0.5"], "classification.momentum cannot act"),
        (["features.layer=layer3"], "features.layer cannot act, since features.share is 0"),
        (["features.share=1", "classification.weight=0.0"], "features.share cannot act"),
        (["classification.clip=1.0", "optimiser.method=sign"], "classification.clip cannot act"),
        (["classification.clip=1.0"], ""),
        (["finish.keep=last", "finish.early=false", "finish.confidence=1.0"], "finish.confidence cannot act"),
        (
            ["terms.frequency.weight=1.0", "terms.frequency.levels=2"],
            "terms.frequency.levels cannot act, since terms.frequency.kind is 'laplacian'; it belongs to 'wavelet'",
        ),
        (["terms.frequency.weight=1.0", "terms.frequency.levels=2", "terms.frequency.kind=wavelet"], ""),
        (
            ["terms.entropy.weight=1.0", "terms.entropy.strength=0.1"],
            "terms.entropy.strength cannot act, since terms.entropy.smoothing is 'none'; it belongs to 'ema' and 'tv'",
        ),
        ([f"terms.self_attention.{each}" for each in ("weight=1.0", "gamma=2.0", "reduction=layered")], ""),
        (
            [f"terms.self_attention.{each}" for each in ("weight=1.0", "gamma=2.0", "reduction=sum")],
            "terms.self_attention.gamma cannot act",
        ),
        (["classification.loss=distribution", "classification.peak=0.5"], "classification.peak cannot act"),
        (["classification.schedule={end = 0.5}"], "classification.schedule.end cannot act, since classification"),
        (["optimiser.schedule={end = 0.5}"], "optimiser.schedule.end cannot act"),
        (['optimiser.schedule={end = 0.5, shape = "cosine"}'], ""),
    ],
)
def test_settings_that_cannot_act_are_said(changes: list[str], message: str) -> None:
    without = dict.fromkeys(load_latent_recipe("quick").terms, 0.0)
    off = [f"terms.{name}.weight={weight}" for name, weight in without.items()]
    lines = idle_settings(Method.of(load_latent_recipe("quick", [*off, *changes])))
    assert len(lines) == bool(message)
    assert all(line.startswith(message) for line in lines)


@pytest.mark.parametrize("name", preset_names())
def test_every_setting_of_a_preset_acts(name: str) -> None:
    assert idle_settings(Method.of(load_latent_recipe(name))) == ()


def test_python_warns_of_settings_that_cannot_act(backbone: StableDiffusion) -> None:
    recipe = load_latent_recipe("quick", ["expectation.every=2"])
    with pytest.warns(UserWarning, match=r"expectation\.every cannot act") as caught:
        LatentAttack(backbone, ["lab:resnet"], recipe)
    assert [each.filename for each in caught] == [__file__]
    baseline = load_recipe("autoattack", ['baseline.attacks=["square"]', "baseline.steps=7"])
    assert isinstance(baseline, BaselineRecipe)
    with pytest.warns(UserWarning, match=r"baseline\.steps cannot act, since baseline\.attacks is 'square'") as caught:
        PixelAttack(["lab:resnet"], baseline)
    assert [each.filename for each in caught] == [__file__]


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        (
            "quick",
            ["terms.contrast.weight=1.0", "terms.contrast.margn=1"],
            "known: form, delta, tokens, select, weight",
        ),
        ("quick", ["terms.entropy.weight=1.0", "terms.entropy.wieght=1"], "did you mean 'weight'"),
        ("quick", ["terms.replace.wieght=1.0"], "terms.replace.weight: Field required; is 'wieght' meant for it"),
        ("quick", ["classification.los=margin"], "did you mean 'loss'"),
        ("quick", ["classification.schedule.strt=1"], "did you mean 'start'"),
        ("quick", ["reconstruction.methd=null_text"], "did you mean 'method'"),
        ("quick", ["expectation.draws=2", "expectation.transforms.rotate.degres=3"], "did you mean 'degrees'"),
        ("quick", ["classification.fusion=consensus", "classification.fusion_options.zz=1.0"], "known: scale, tau"),
        ("mifgsm", ["baseline.epsilom=0.1"], "did you mean 'epsilon'"),
        ("mifgsm", ["baseline.atack=pgd"], "did you mean 'attack'"),
    ],
)
def test_unknown_options_name_a_near_one_or_all(preset: str, changes: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        work_of(load_recipe(preset, changes))
