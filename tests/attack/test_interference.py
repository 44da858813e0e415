"""What attention is steered towards: how the phrase is chosen, where it stands, and what it looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from attnshift.attack.interference import (
    Choice,
    Subject,
    _aligned,
    align,
    choose,
    class_of,
    locate_class,
    observe_interference,
)
from attnshift.attack.method import Method
from attnshift.attack.prepare import PreparedBatch, Task, prepare_batch
from attnshift.batching import select_rows
from attnshift.classifiers import load_classifier
from attnshift.classifiers.classifier import Classifier, Preprocessing
from attnshift.diffusion.backbone import Read
from attnshift.diffusion.inversion import invert
from attnshift.errors import ModelError, RecipeError, UserError
from attnshift.lab.scenes import CLASSES
from attnshift.recipes.prompts import Caption, PromptSection
from attnshift.recipes.reading import load_recipe
from small_runs import run_small, small_settings, write_photos
from tables import records

if TYPE_CHECKING:
    from attack.conftest import Prepare
    from attnshift.diffusion.stable_diffusion import StableDiffusion
    from attnshift.recipes.schema import Recipe
    from attnshift.types import Interference

LONG = "qqqqqqqqqqqqqqqqqqqqqqqqq"
"""A name of 25 tokens, where 24 are read."""
BOTH = "prompt.template=a photo of a {} and a {interference}"
REVERSED = "prompt.template=a {interference} beside a {}"


class Told(nn.Module):
    """Answers image k, which is grey of brightness k / 10, with row k of its table."""

    def __init__(self, rows: Sequence[Sequence[float]]):
        super().__init__()
        self.rows = torch.tensor(rows)

    def forward(self, images: Tensor) -> Tensor:
        return self.rows[(images.mean((1, 2, 3)) * 10).round().long()]


class Silent(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise AssertionError("nobody should ask")


def classifier(network: nn.Module, names: Sequence[str], classes: int = 0) -> Classifier:
    plain = Preprocessing((8, 8), "bilinear", (0.0,) * 3, (1.0,) * 3)
    return Classifier("told", network, plain, classes or len(names), tuple(names))


def told(probabilities: Sequence[Sequence[float]], names: Sequence[str]) -> Classifier:
    return classifier(Told([[*torch.tensor(row).log()] for row in probabilities]), names)


def greys(count: int) -> Tensor:
    return (torch.arange(count) / 10).view(-1, 1, 1, 1).expand(count, 3, 8, 8)


def wanting(choice: str, *settings: str) -> Recipe:
    return load_recipe("quick", [f"interference.choose={choice}", *settings])


def chosen(
    backbone: StableDiffusion,
    recipe: Recipe,
    models: Sequence[Classifier],
    subjects: Sequence[Subject],
    images: Tensor | None = None,
) -> list[Choice]:
    return list(choose(recipe, backbone, models, greys(len(subjects)) if images is None else images, subjects))


def of_classes(names: Sequence[str], *labels: int) -> list[Subject]:
    return [Subject(f"image {at}", label, names[label]) for at, label in enumerate(labels)]


NAMES = ("mug", "ball", "tree", "house")


def test_confusion_is_the_highest_wrong_class_of_the_mean_probability(backbone: StableDiffusion) -> None:
    """Image 0: the mean logit says otherwise. Image 1: so does the first surrogate. Image 2: the largest of all."""
    tiny = 1e-6
    first = [[tiny, 0.9, 0.1, tiny], [tiny, 0.4, 0.6, tiny], [0.3, 0.1, tiny, 0.6]]
    second = [[0.5, tiny, 0.5, tiny], [tiny, 0.9, 0.1, tiny], [0.1, 0.5, tiny, 0.2]]
    models = [told(first, NAMES), told(second, NAMES)]
    means = (torch.tensor(first) + torch.tensor(second)) / 2
    assert means.argmax(1).tolist() == [1, 1, 3]
    choices = chosen(backbone, wanting("confusion"), models, of_classes(NAMES, 0, 0, 0))
    assert choices == [Choice("ball", 1), Choice("ball", 1), Choice("house", 3)]


def test_the_true_class_is_never_chosen_though_it_is_first(backbone: StableDiffusion) -> None:
    model = told([[0.1, 0.2, 0.3, 0.4]] * 4, NAMES)
    choices = chosen(backbone, wanting("confusion"), [model], of_classes(NAMES, 3, 2, 1, 0))
    assert [choice.label for choice in choices] == [2, 3, 3, 3]


@pytest.mark.parametrize("twin", ["crane", "Crane", " crane ", "CRANE"])
def test_a_class_of_the_same_name_is_passed_over(backbone: StableDiffusion, twin: str) -> None:
    names = ("crane", "mug", twin, "ball")
    model = told([[0.4, 0.2, 0.3, 0.1], [0.3, 0.2, 0.4, 0.1]], names)
    choices = chosen(backbone, wanting("confusion"), [model], of_classes(names, 0, 2))
    assert choices == [Choice("mug", 1)] * 2


def test_spaces_inside_a_name_do_not_make_it_another(backbone: StableDiffusion) -> None:
    names = ("red ball", "Red  Ball", "mug")
    assert chosen(backbone, wanting("confusion"), [told([[0.1, 0.8, 0.1]], names)], of_classes(names, 0)) == [
        Choice("mug", 2)
    ]


def test_neither_the_images_own_name_nor_the_classifiers_for_it_is_chosen(backbone: StableDiffusion) -> None:
    """The label file calls class 0 a cup: class 1 is called so too, and class 2 as the classifier calls class 0."""
    names = ("mug", "Cup", "MUG", "ball")
    model = told([[0.4, 0.3, 0.2, 0.1]], names)
    assert chosen(backbone, wanting("confusion"), [model], [Subject("image", 0, "cup")]) == [Choice("ball", 3)]


@pytest.mark.parametrize("choice", ["confusion", "text", "random"])
def test_a_name_that_the_prompt_cannot_hold_is_passed_over(backbone: StableDiffusion, choice: str) -> None:
    names = ("mug", LONG, "ball", LONG.replace("q", "z"))
    model = told([[0.0001, 0.6, 0.1, 0.2]] * 8, names)
    assert chosen(backbone, wanting(choice), [model], of_classes(names, *[0] * 8)) == [Choice("ball", 2)] * 8


def test_a_joint_prompt_must_hold_both_names(backbone: StableDiffusion) -> None:
    """Either name alone fits; only together they do not, and in the reversed order it is the true name that is cut."""
    names = ("q" * 12, "z" * 12, "ball")
    model = told([[0.1, 0.8, 0.1]], names)
    subjects = of_classes(names, 0)
    assert chosen(backbone, wanting("confusion"), [model], subjects) == [Choice(names[1], 1)]
    for template in (BOTH, REVERSED):
        assert chosen(backbone, wanting("confusion", template), [model], subjects) == [Choice("ball", 2)]


def test_no_class_can_interfere(backbone: StableDiffusion) -> None:
    names = ("mug", "Mug", LONG)
    with pytest.raises(RecipeError, match="no class can interfere with 'mug'"):
        chosen(backbone, wanting("confusion"), [told([[0.3, 0.3, 0.4]], names)], of_classes(names, 0))


@pytest.mark.parametrize("template", ["{}", "a photo of a {}"])
def test_text_is_the_class_whose_prompt_the_text_encoder_puts_nearest(backbone: StableDiffusion, template: str) -> None:
    tokens = backbone.tokenizer([template.format(name) for name in CLASSES], padding="max_length", return_tensors="pt")
    with torch.no_grad():
        pooled = backbone.text_encoder(tokens.input_ids).pooler_output
    expected = torch.nn.functional.cosine_similarity(pooled[:, None], pooled[None], dim=2)
    expected.fill_diagonal_(-1)
    subjects = of_classes(CLASSES, *range(10))
    recipe = wanting("text", f'prompt.template="{template}"')
    choices = chosen(backbone, recipe, [classifier(Silent(), CLASSES)], subjects)
    assert [choice.label for choice in choices] == expected.argmax(1).tolist()
    assert [choice.phrase for choice in choices] == [CLASSES[choice.label] for choice in choices]


def test_text_starts_from_the_images_own_name(backbone: StableDiffusion) -> None:
    names, model = ("thing", *CLASSES), classifier(Silent(), ("thing", *CLASSES))
    own = [Subject("image", 0, "a blue die"), Subject("image", 0, "thing")]
    die, thing = chosen(backbone, wanting("text"), [model], own)
    near = backbone.summarise([f"a photo of a {name}" for name in ("a blue die", *names[1:])])
    assert die.label == int((near[1:] @ near[0]).argmax()) + 1
    assert die != thing


def aimed(names: Sequence[str], *pairs: tuple[int, int]) -> list[Subject]:
    return [Subject(f"image {at}", label, names[label], target) for at, (label, target) in enumerate(pairs)]


def test_target_is_each_images_own(backbone: StableDiffusion) -> None:
    model = classifier(Silent(), NAMES)
    choices = chosen(backbone, wanting("target"), [model], aimed(NAMES, (0, 3), (1, 0), (2, 1)))
    assert choices == [Choice("house", 3), Choice("mug", 0), Choice("ball", 1)]


@pytest.mark.parametrize("choice", ["confusion", "text", "random"])
def test_a_target_decides_nothing_unless_it_is_asked_for(backbone: StableDiffusion, choice: str) -> None:
    model = told([[0.1, 0.2, 0.3, 0.4]], NAMES)
    for target in (1, 2, 3):
        assert chosen(backbone, wanting(choice), [model], aimed(NAMES, (0, target))) == chosen(
            backbone, wanting(choice), [model], of_classes(NAMES, 0)
        )


def test_a_target_that_is_not_there_cannot_be_chosen(backbone: StableDiffusion) -> None:
    with pytest.raises(RecipeError, match=r"interference\.choose is 'target' and the attack has none"):
        chosen(backbone, wanting("target"), [classifier(Silent(), NAMES)], of_classes(NAMES, 0))


def test_a_target_of_the_same_name_or_too_long_is_refused(backbone: StableDiffusion) -> None:
    names = ("crane", "mug", "Crane", LONG)
    model = classifier(Silent(), names)
    with pytest.raises(RecipeError, match="the target 'Crane' is the true class of an image; give another"):
        chosen(backbone, wanting("target"), [model], aimed(names, (1, 0), (0, 2)))
    with pytest.raises(ModelError, match="would be cut"):
        chosen(backbone, wanting("target"), [model], aimed(names, (0, 3)))


@pytest.mark.parametrize(
    ("phrase", "label"), [("ball", 1), ("Ball", 1), (" tree ", 2), ("a foggy street", -1), ("balls", -1)]
)
def test_given_is_the_phrase_and_the_class_that_it_names(backbone: StableDiffusion, phrase: str, label: int) -> None:
    model = classifier(Silent(), NAMES)
    recipe = wanting("given", f'interference.phrase="{phrase}"')
    assert chosen(backbone, recipe, [model], of_classes(NAMES, 0, 3)) == [Choice(phrase, label)] * 2


def test_given_needs_no_class_names(backbone: StableDiffusion) -> None:
    recipe = wanting("given", "interference.phrase=ball")
    assert chosen(backbone, recipe, [classifier(Silent(), (), 4)], of_classes(NAMES, 0)) == [Choice("ball", -1)]


def test_names_come_from_the_first_surrogate_that_has_them(backbone: StableDiffusion) -> None:
    models = [classifier(Silent(), (), 4), classifier(Silent(), NAMES), classifier(Silent(), NAMES[::-1])]
    recipe = wanting("given", "interference.phrase=ball")
    assert chosen(backbone, recipe, models, of_classes(NAMES, 0)) == [Choice("ball", 1)]


def test_class_of_is_the_first_class_called_so() -> None:
    assert [class_of(phrase, ("mug", "crane", "Crane")) for phrase in ("CRANE", "mug ", "cup")] == [1, 0, -1]


@pytest.mark.parametrize("phrase", ["mug", "Mug", "MUG ", "  mug"])
def test_a_given_phrase_that_is_the_true_class_of_one_image_is_refused(backbone: StableDiffusion, phrase: str) -> None:
    recipe = wanting("given", f'interference.phrase="{phrase}"')
    with pytest.raises(RecipeError, match="true class of an image"):
        chosen(backbone, recipe, [classifier(Silent(), NAMES)], of_classes(NAMES, 1, 0))


def test_a_given_phrase_is_refused_that_the_classifier_calls_the_true_class(backbone: StableDiffusion) -> None:
    """The label file's own name hides that phrase and image are of one class."""
    recipe = wanting("given", "interference.phrase=mug")
    with pytest.raises(RecipeError, match="true class of an image"):
        chosen(backbone, recipe, [classifier(Silent(), NAMES)], [Subject("image", 0, "cup")])


@pytest.mark.parametrize(
    ("settings", "longest"),
    [([], 18), ([BOTH], 13), (["prompt.interference_template=a photo of a {} on the grass"], 18)],
)
def test_a_given_phrase_that_would_be_cut_is_refused(
    backbone: StableDiffusion, settings: list[str], longest: int
) -> None:
    """What stands behind the phrase may be cut, as where a long class name stands in its own prompt."""
    for length in (longest, longest + 1):
        recipe = wanting("given", f"interference.phrase={'q' * length}", *settings)
        if length == longest:
            assert len(chosen(backbone, recipe, [classifier(Silent(), NAMES)], of_classes(NAMES, 0))) == 1
            continue
        with pytest.raises(ModelError, match="would be cut"):
            chosen(backbone, recipe, [classifier(Silent(), NAMES)], of_classes(NAMES, 0))


@pytest.mark.parametrize("choice", ["confusion", "target", "text", "random"])
def test_a_choice_among_classes_needs_their_names(backbone: StableDiffusion, choice: str) -> None:
    with pytest.raises(RecipeError, match=r"no surrogate has them; name them, .* or give interference\.choose=given"):
        chosen(backbone, wanting(choice), [classifier(Told([[0.0] * 4]), (), 4)], of_classes(NAMES, 0))


def drawn(backbone: StableDiffusion, subjects: Sequence[Subject], seed: int = 0) -> list[int]:
    model, recipe = classifier(Silent(), CLASSES), wanting("random", f"seed={seed}")
    return [choice.label for choice in chosen(backbone, recipe, [model], subjects)]


def test_random_belongs_to_seed_and_id_and_to_nothing_else(backbone: StableDiffusion) -> None:
    subjects = [Subject(f"image {at}", 3, "mug") for at in range(60)]
    whole = drawn(backbone, subjects)
    assert drawn(backbone, subjects[::-1]) == whole[::-1]
    assert [drawn(backbone, [subject])[0] for subject in subjects[:12]] == whole[:12]
    assert drawn(backbone, subjects, seed=1) != whole
    assert set(whole) == set(range(10)) - {3}, "every wrong class is drawn, and the true one never"


def test_random_hardly_depends_on_the_class(backbone: StableDiffusion) -> None:
    """Another label changes only a draw that would have hit it: a control does not follow the image's content."""
    one, other = ([Subject(f"image {at}", label, CLASSES[label]) for at in range(40)] for label in (3, 5))
    pairs = list(zip(drawn(backbone, one), drawn(backbone, other), strict=True))
    assert all(left == right for left, right in pairs if left != 5 and right != 3)
    assert sum(left == right for left, right in pairs) >= 25


CHOICES = ["confusion", "text", "random"]


@pytest.mark.parametrize("choice", CHOICES)
def test_batch_mates_decide_nothing(backbone: StableDiffusion, choice: str) -> None:
    draw = torch.Generator().manual_seed(4)
    model = told(torch.rand(6, 10, generator=draw).tolist(), CLASSES)
    subjects, images = of_classes(CLASSES, 5, 0, 3, 3, 8, 1), greys(6)
    whole = chosen(backbone, wanting(choice), [model], subjects, images)
    alone = [
        chosen(backbone, wanting(choice), [model], [subject], image[None])[0]
        for subject, image in zip(subjects, images, strict=True)
    ]
    assert whole == alone
    assert all(choice.label != subject.label for choice, subject in zip(whole, subjects, strict=True))


def test_align_by_hand() -> None:
    half, third = 1 / 2, 1 / 3
    cases: list[tuple[list[int], list[int], list[list[float]]]] = [
        ([1], [1], [[1]]),
        ([3], [3], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ([2], [3], [[third] * 3] * 2),
        ([3], [1], [[1]] * 3),
        ([1, 2], [2, 1], [[half, half, 0], [0, 0, 1], [0, 0, 1]]),
        ([1, 2], [1, 2], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ([2, 2], [1, 3], [[1, 0, 0, 0]] * 2 + [[0, third, third, third]] * 2),
        ([1, 1], [3], [[third] * 3] * 2),
        ([1, 2], [3], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ([1, 1, 1], [1, 1], [[half, half]] * 3),
    ]
    for true, other, expected in cases:
        assert torch.equal(align(true, other), torch.tensor(expected, dtype=torch.float)), (true, other)


def test_align_shares_each_tokens_attention_out() -> None:
    draw = torch.Generator().manual_seed(0)
    for _ in range(40):
        true, other = (torch.randint(1, 4, (int(count),), generator=draw).tolist()
                       for count in torch.randint(1, 4, (2,), generator=draw))  # fmt: skip
        matrix = align(true, other)
        assert matrix.shape == (sum(true), sum(other))
        assert (matrix >= 0).all()
        torch.testing.assert_close(matrix.sum(1), torch.ones(sum(true)))
        if sum(true) == sum(other) and (len(true) != len(other) or true == other):
            assert torch.equal(matrix, torch.eye(sum(true)))


def spoken(backbone: StableDiffusion, recipe: Recipe, true: str, phrase: str) -> Interference:
    noise_schedule = backbone.noise_schedule(20, 5)
    subject, choice = Subject("image", 0, true), Choice(phrase, -1)
    return observe_interference(recipe, backbone, noise_schedule, (), [subject], [choice], ())[0]


@pytest.mark.parametrize("true", ["mug", "snowman", "red ball", "jack-o'-lantern", "St. Bernard", "a  big die"])
@pytest.mark.parametrize("phrase", ["ball", "snow leopard", "red dumbbell"])
def test_the_alignment_has_the_phrases_own_tokens(backbone: StableDiffusion, true: str, phrase: str) -> None:
    (matrix,) = spoken(backbone, wanting("confusion"), true, phrase).alignment
    rows, columns = (len(backbone.locate(f"a photo of a {name}", name)) for name in (true, phrase))
    assert matrix.shape == (rows, columns)
    torch.testing.assert_close(matrix.sum(1), torch.ones(rows))
    if len(true.split()) == len(phrase.split()) == 2:
        first, other = (len(backbone.tokenizer.tokenize(name.split()[0])) for name in (true, phrase))
        assert matrix[:first, other:].eq(0).all()
        assert matrix[first:, :other].eq(0).all()


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{}", ("mug", 0, None)),
        ("a photo of a {}", ("a photo of a mug", 13, None)),
        ("{} in {braces}", ("mug in {braces}", 0, None)),
        ("a photo of a {} and a {interference}", ("a photo of a mug and a red ball", 13, 23)),
        ("a {interference} and a {}", ("a red ball and a mug", 17, 2)),
        ("{interference}{}", ("red ballmug", 8, 0)),
        ("{}{interference}.", ("mugred ball.", 0, 3)),
    ],
)
def test_a_prompt_says_where_its_names_start(template: str, expected: tuple[str, int, int | None]) -> None:
    prompt = PromptSection(template=template).prompt("mug", "red ball")
    assert (prompt.text, prompt.start, prompt.interference) == expected


@pytest.mark.parametrize("name", ["{interference}", "{}", "a {interference} {}"])
@pytest.mark.parametrize("template", ["a {} and a {interference}", "a {interference} and a {}"])
def test_braces_of_a_name_are_plain_text_beside_another(template: str, name: str) -> None:
    for true, other in ((name, "mug"), ("mug", name)):
        prompt = PromptSection(template=template).prompt(true, other)
        assert prompt.interference is not None
        assert prompt.text[prompt.start :].startswith(true)
        assert prompt.text[prompt.interference :].startswith(other)
        assert len(prompt.text) == len("a  and a ") + len(true) + len(other)


@pytest.mark.parametrize(
    ("template", "other", "expected"),
    [
        ("a photo of a {}", None, ("a photo of a red ball", 13)),
        ("{}", None, ("red ball", 0)),
        ("my {} in snow", None, ("my red ball in snow", 3)),
        ("a {} and a {interference}", None, ("a photo of a red ball", 13)),
        ("a {} and a {interference}", "see: {}!", ("see: red ball!", 5)),
        ("a photo of a {}", "{} alone", ("red ball alone", 0)),
    ],
)
def test_the_interference_prompt_is_like_the_own_one_unless_told(
    template: str, other: str | None, expected: tuple[str, int]
) -> None:
    prompt = PromptSection(template=template, interference_template=other).interference_prompt("red ball")
    assert (prompt.text, prompt.start, prompt.interference) == (*expected, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["interference.phrase=ball"], "phrase goes with choose = 'given'"),
        (["interference.choose=random", "interference.phrase=ball"], "phrase goes with choose = 'given'"),
        (["interference.choose=given"], "phrase goes with choose = 'given'"),
        (["interference.choose=given", 'interference.phrase="  "'], "phrase goes with choose = 'given'"),
        (["interference.choose=nearest"], r"interference\.choose: .*got 'nearest'"),
        (["interference.class=ball"], r"interference\.class"),
        (["prompt.template={interference} {} {interference}"], r"prompt\.template: .*may hold \{interference\} once"),
        (["prompt.template=a {interference}"], r"prompt\.template: .*must hold \{\} once"),
        (["prompt.interference_template=a photo"], r"prompt\.interference_template: .*must hold \{\} once"),
        (["prompt.interference_template={} and {}"], r"prompt\.interference_template: .*must hold \{\} once"),
    ],
)
def test_a_wrong_interference_is_refused_when_loaded(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("quick", settings)


def test_joint_tokens_need_a_prompt_that_names_both() -> None:
    joint = ["terms.contrast.weight=1.0", "terms.contrast.tokens=joint"]
    with pytest.raises(RecipeError, match=r"'contrast' reads tokens 'joint', but prompt\.template does not name both"):
        Method.of(load_recipe("quick", joint))
    with pytest.raises(RecipeError, match="does not name both"):
        Method.of(load_recipe("quick", [*joint, "prompt.interference_template={} and more"]))
    for template in (BOTH, REVERSED):
        assert Method.of(load_recipe("quick", [*joint, template])).reads_interference


def words(batch: PreparedBatch, prompt: str, span: Sequence[int]) -> str:
    """What stands at ``span`` in the encoded prompt."""
    tokenizer = batch.render.backbone.tokenizer  # type: ignore[attr-defined]
    ids = tokenizer(prompt).input_ids
    return "".join(tokenizer.convert_ids_to_tokens([ids[at] for at in span])).replace("</w>", " ").strip()


@pytest.mark.parametrize("template", [BOTH, REVERSED])
@pytest.mark.parametrize(("true", "phrase"), [("ball", "red ball"), ("red ball", "ball"), ("mug", "photo of a mug")])
def test_joint_spans_tell_a_name_from_one_that_holds_it(
    exact: StableDiffusion,
    exact_classifiers: list[Classifier],
    tasks: list[Task],
    template: str,
    true: str,
    phrase: str,
) -> None:
    settings = [
        template, "terms.contrast.weight=1.0", "terms.contrast.tokens=joint", "interference.choose=given",
        f"interference.phrase={phrase}", "diffusion.denoising_steps=1",
    ]  # fmt: skip
    names = (true, "snowman")
    shown = [replace(task, class_name=name) for task, name in zip(tasks, names, strict=False)]
    batch = prepare_batch(Method.of(load_recipe("quick", settings)), exact, exact_classifiers[:1], shown)
    assert batch.observe.interference is not None
    assert batch.observe.interference.joint is not None
    for image, (own, other) in enumerate(zip(batch.observe.tokens, batch.observe.interference.joint, strict=True)):
        name = names[image]
        prompt = template.removeprefix("prompt.template=").replace("{}", name).replace("{interference}", phrase)
        assert words(batch, prompt, own) == name
        assert words(batch, prompt, other) == phrase
        assert (max(own) < min(other)) if template == BOTH else (max(other) < min(own))
        assert torch.equal(batch.render.trajectory.text.states[image], exact.embed([prompt]).states[0])


def steered(prepared: Prepare, *settings: str, rows: slice = slice(None)) -> tuple[PreparedBatch, Interference]:
    given = ["interference.choose=given", "interference.phrase=crane", "diffusion.denoising_steps=3", *settings]
    batch = prepared("quick", given, rows)
    assert batch.observe.interference is not None
    return batch, batch.observe.interference


REPLACE = ("terms.replace.weight=1.0", "terms.replace.select.grid=half")


@pytest.mark.parametrize("guidance", ["1.0", "2.5"])
def test_reference_maps_are_a_plain_pass_on_the_stored_latents(prepared: Prepare, guidance: str) -> None:
    batch, interference = steered(prepared, *REPLACE, f"diffusion.guidance={guidance}")
    backbone, noise_schedule = batch.render.backbone, batch.render.trajectory.noise_schedule
    with torch.no_grad():
        stored = invert(backbone, noise_schedule, backbone.encode(batch.images), backbone.embed([""] * 3), "aligned")
        text = backbone.embed(["a photo of a crane"] * 3)
    expected = [
        site for site in backbone.sites(64) if (site.kind, site.grid.rows) == ("cross", 4) and site.place != "mid"
    ]
    assert set(interference.attention) == {site.seen("reference") for site in expected}
    assert not any(site.view == "reference" for site in batch.observe.sites), "no pass of the attack reads them again"
    for site in expected:
        maps = interference.attention[site.seen("reference")]
        assert len(maps) == len(noise_schedule) == 3
        for step, found in enumerate(maps):
            with torch.no_grad():
                plain = backbone.denoise(stored[step], noise_schedule.timesteps[step], text, [Read(site)]).attention[
                    site
                ]
            assert not found.requires_grad
            torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-9)


def test_spans_text_and_probe_of_the_interference_prompt(prepared: Prepare) -> None:
    batch, interference = steered(prepared, "terms.contrast.weight=1.0", "prompt.interference_template=of {} on the")
    assert interference.phrases == ("crane",) * 3
    assert interference.tokens == ((2, 3, 4, 5),) * 3
    assert interference.probed == ((24, 25, 26, 27),) * 3
    assert interference.joint is None
    assert interference.attention == {}
    spoken = batch.render.trajectory.interference
    assert spoken is not None
    text = batch.render.backbone.embed(["of crane on the"] * 3)
    torch.testing.assert_close(spoken.text.states, text.states, rtol=0, atol=0)
    torch.testing.assert_close(spoken.phrase.states, text.states[:, 2:6], rtol=0, atol=0)


def test_phrases_of_unequal_length_are_filled_up_and_not_mixed(
    exact: StableDiffusion, exact_classifiers: list[Classifier], tasks: list[Task]
) -> None:
    """Each image's own phrase, whatever stands beside it."""
    names = ("mug", "crane", "snowman")
    recipe = load_recipe("quick", ["terms.contrast.weight=1.0"])
    subjects = [Subject(task.id, task.label, task.class_name) for task in tasks]
    choices = [Choice(name, -1) for name in names]
    interference, spoken = observe_interference(recipe, exact, exact.noise_schedule(20, 5), (), subjects, choices, ())
    assert interference.tokens == ((5,), (5, 6, 7, 8), (5, 6))
    assert interference.probed == ((24,), (24, 25, 26, 27), (24, 25))
    assert [matrix.shape for matrix in interference.alignment] == [(2, 1), (1, 4), (1, 2)]
    assert [interference.keys(image) for image in range(3)] == [25, 28, 26]
    for image, span in enumerate(interference.tokens):
        assert torch.equal(spoken.phrase.states[image, : len(span)], spoken.text.states[image, list(span)])


@pytest.mark.parametrize(("phrase", "label"), [("crane", 134), ("a foggy street", -1)])
def test_goals_know_the_class_of_the_phrase(prepared: Prepare, phrase: str, label: int) -> None:
    batch, _ = steered(prepared, "terms.contrast.weight=1.0", f"interference.phrase={phrase}", rows=slice(2))
    assert batch.surrogates.goals.interference is not None
    assert batch.surrogates.goals.interference.tolist() == [label] * 2


def test_nothing_is_chosen_where_nothing_reads_it(prepared: Prepare) -> None:
    batch = prepared("quick", ["diffusion.denoising_steps=1"], slice(1))
    assert batch.observe.interference is None
    assert batch.render.trajectory.interference is None
    assert batch.surrogates.goals.interference is None


def test_rows_cut_all_of_the_interference(prepared: Prepare) -> None:
    batch, whole = steered(prepared, *REPLACE, "interference.choose=random", "interference.phrase=", BOTH)
    cut = select_rows(batch, torch.tensor([2, 0]))
    part, spoken, other = (
        cut.observe.interference,
        cut.render.trajectory.interference,
        batch.render.trajectory.interference,
    )
    assert part is not None
    assert spoken is not None
    assert other is not None
    assert whole.joint is not None
    assert len(set(whole.phrases)) == 3
    for own, all_of_it in (
        (part.phrases, whole.phrases), (part.tokens, whole.tokens), (part.probed, whole.probed),
        (part.joint, whole.joint),
    ):  # fmt: skip
        assert own == (all_of_it[2], all_of_it[0])
    tensors = [
        *zip(part.alignment, (whole.alignment[2], whole.alignment[0]), strict=True),
        *((a, b[[2, 0]]) for site in whole.attention
          for a, b in zip(part.attention[site], whole.attention[site], strict=True)),
        (spoken.text.states, other.text.states[[2, 0]]),
        (spoken.phrase.states, other.phrase.states[[2, 0]]),
        (cut.surrogates.goals.interference, batch.surrogates.goals.interference[[2, 0]]),  # type: ignore[index]
    ]  # fmt: skip
    assert all(torch.equal(own, expected) for own, expected in tensors)  # type: ignore[arg-type]


PEAKED = ["classification.loss=distribution", "classification.goal=peaked", "interference.choose=given"]


def refused(tmp_path: Path, pipeline: Path, *changes: str) -> str:
    """What a run of these settings says, which leaves nothing behind."""
    write_photos(tmp_path)
    settings = small_settings(tmp_path, pipeline, tmp_path / "run", *changes)
    with pytest.raises(UserError) as caught:
        run_small(settings)
    assert len(str(caught.value).splitlines()) == 1
    assert not settings.out.exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([*PEAKED, "interference.phrase=a foggy street"], "needs a class to peak at"),
        (["terms.contrast.weight=1.0", *PEAKED[2:], "interference.phrase=Snowman"], "true class of an image"),
        (["terms.contrast.weight=1.0", *PEAKED[2:], f"interference.phrase={LONG}"], "would be cut"),
        (["terms.contrast.weight=1.0", "terms.contrast.tokens=joint"], "does not name both"),
        (["terms.contrast.weight=1.0", "interference.choose=target"], "the attack has none"),
    ],
    ids=["no class to peak at", "the true class", "too long", "joint without both", "no target"],
)
def test_an_interference_that_cannot_be_is_refused_before_anything_is_written(
    pipeline_folder: Path, tmp_path: Path, changes: list[str], message: str
) -> None:
    assert message in refused(tmp_path, pipeline_folder, *changes)


def test_unknown_class_names_are_noticed_before_anything_is_written(
    pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless(name: str) -> Any:
        return replace(load_classifier(name), class_names=())

    monkeypatch.setattr("attnshift.defences.names.load_classifier", nameless)
    assert "no surrogate has them" in refused(tmp_path, pipeline_folder, "terms.contrast.weight=1.0")


@pytest.mark.heavy
def test_a_run_peaks_at_the_class_of_its_phrase_and_says_which_phrase(pipeline_folder: Path, tmp_path: Path) -> None:
    write_photos(tmp_path, count=2)
    changes = [*PEAKED, "interference.phrase=goldfish", "optimiser.iterations=1"]
    store = run_small(small_settings(tmp_path, pipeline_folder, tmp_path / "run", *changes))
    assert [row["interference"] for row in records(store, "results")] == ["goldfish"] * 2


@pytest.mark.heavy
def test_a_targeted_run_steers_towards_its_target(pipeline_folder: Path, tmp_path: Path) -> None:
    write_photos(tmp_path, count=2)
    changes = ["terms.contrast.weight=1.0", "interference.choose=target", "optimiser.iterations=1"]
    settings = small_settings(tmp_path, pipeline_folder, tmp_path / "run", *changes, target="goldfish")
    assert [row["interference"] for row in records(run_small(settings), "results")] == ["goldfish"] * 2


def test_all_phrases_of_a_class_are_located_and_aligned(backbone: StableDiffusion) -> None:
    caption = Caption("a mug, my red ball", ((10, "red ball"), (2, "mug")))
    section = PromptSection()
    mine, other = section.prompt("mug, red ball", "", caption), section.interference_prompt("snowman", caption)
    spans = [backbone.locate(mine.text, words) for words in ("red ball", "mug")]
    assert locate_class(backbone, mine, "all") == sum(spans, ())
    alignment = _aligned(section, backbone, mine, other)
    assert alignment.shape == (sum(map(len, spans)), len(backbone.locate(other.text, "snowman")))
    torch.testing.assert_close(alignment.sum(1), torch.ones(len(alignment)))
