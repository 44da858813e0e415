"""The page itself: what stands where, and what happens on a click. Nothing else imports gradio."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr

from attnshift.data.images import as_pixels, read_image
from attnshift.errors import UserError
from attnshift.recipes.reading import load_latent_recipe
from attnshift.studio import panels, pictures
from attnshift.studio.choices import LIMITS, NO_BUDGET, AttackChoices, chosen_recipe, knobs, presets
from attnshift.studio.folder import command
from attnshift.studio.networks import Networks
from attnshift.studio.running import AttackProgress, Finished, attack_image
from attnshift.studio.session import Session

__all__ = ["build_page"]

PRESET = "fast"
"""Preset that the page begins with."""
_ALL = -1
"""Choice that stands for all layers, heads or steps."""

Updates = dict[Any, Any]
"""Component -> its new value, or itself with other properties."""


def build_page(networks: Networks, examples: Sequence[Path]) -> gr.Blocks:
    """The page, with ``examples`` as images to pick."""
    with gr.Blocks(title="attnshift studio", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.HTML(_HEADER, elem_classes="as-head as-clip")
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=300):
                chosen = _Chosen.lay_out(networks, examples)
            with gr.Column(scale=7, min_width=300):
                shown = _Shown.lay_out()
        _Studio(networks, tuple(examples), chosen, shown).connect()
    return page


_HEADER = (
    "<h1>attnshift studio</h1><p>Change an image so that classifiers see something else, while it still looks the "
    f"same to you. The attack follows {panels.term('surrogate', 'surrogates')}, keeps within a "
    f"{panels.term('budget')}, and {panels.term('judge', 'judges')} that it never saw say how far it carries.</p>"
)
_SAID: dict[str, Any] = {"api_visibility": "private"}
_QUIET: dict[str, Any] = _SAID | {"show_progress": "hidden"}
_TO_THE_RESULT = (
    "() => { if (innerWidth < 900) document.querySelector('#status').scrollIntoView({behavior: 'smooth'}) }"
)
"""On a phone the result stands below the choices."""
_BEGIN = "Pick an image, or upload one."
_READY = "Ready. Press Attack."
_BROKEN = "This has gone wrong, and should not have; the terminal of the studio says what."


@dataclass(frozen=True)
class _Chosen:
    """Components in which a person chooses."""

    session: gr.State
    image: gr.Image
    gallery: gr.Gallery
    found: gr.HTML
    klass: gr.Dropdown
    prompt: gr.Textbox
    preset: gr.Dropdown
    metric: gr.Dropdown
    limit: gr.Slider
    iterations: gr.Slider
    classification: gr.Slider
    seed: gr.Number
    terms: Mapping[str, gr.Slider]
    editor: gr.ImageEditor
    go: gr.Button
    stop: gr.Button

    @classmethod
    def lay_out(cls, networks: Networks, examples: Sequence[Path]) -> _Chosen:
        session = gr.State(None, time_to_live=3600)
        image = gr.Image(
            label="Image", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=230, buttons=[]
        )
        gallery = gr.Gallery(
            [(as_pixels(read_image(path, networks.size)), path.stem) for path in examples],
            label="Images of the lab",
            show_label=False,
            object_fit="cover",
            allow_preview=False,
            buttons=[],
            interactive=False,
            visible=bool(examples),
            elem_id="examples",
        )
        found = gr.HTML(elem_classes="as-clip", elem_id="found")
        with gr.Row():
            klass = gr.Dropdown(
                [(name, at) for at, name in enumerate(networks.classes)], value=None, label="True class", min_width=150
            )
            prompt = gr.Textbox(
                label="Prompt, with the class in it", max_lines=3, max_length=300, min_width=220, scale=2
            )
        names = presets()
        recipe = load_latent_recipe(PRESET)
        preset = gr.Dropdown([*names], value=PRESET, label="Preset", info=names[PRESET])
        with gr.Row():
            metric = gr.Dropdown([NO_BUDGET, *LIMITS], value=recipe.budget.metric, label="Budget", min_width=150)
            limit = gr.Slider(
                **_limits(recipe.budget.metric, recipe.budget.limit), label="Limit", min_width=220, scale=2
            )
        with gr.Row():
            go = gr.Button("Attack", variant="primary", interactive=False, elem_id="go", min_width=150)
            stop = gr.Button("Stop and keep", interactive=False, elem_id="stop", min_width=150)
        with gr.Accordion("Terms, iterations and seed", open=False):
            iterations = gr.Slider(1, 100, recipe.optimiser.iterations, step=1, label="Iterations")
            classification = gr.Slider(
                0, 20, recipe.classification.weight, step=0.1, label="classification", info="weight of the surrogates"
            )
            terms = {
                each.name: gr.Slider(
                    0, each.highest, each.weight, step=each.step, label=each.name, info=each.about, visible=each.offered
                )
                for each in knobs(recipe)
            }
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31)
        with gr.Accordion("Mask: change only what you paint", open=False):
            editor = gr.ImageEditor(
                label="Paint over the object",
                type="numpy",
                sources=[],
                transforms=[],
                layers=False,
                brush=gr.Brush(default_size=40, colors=["#ff3b6b"], color_mode="fixed"),
                canvas_size=(pictures.SHOWN, pictures.SHOWN),
                height=420,
                buttons=[],
                elem_id="mask",
            )
        return cls(
            session, image, gallery, found, klass, prompt, preset, metric, limit, iterations, classification, seed,
            terms, editor, go, stop,
        )  # fmt: skip


@dataclass(frozen=True)
class _Shown:
    """Components that show what came of it."""

    status: gr.HTML
    slider: gr.ImageSlider
    difference: gr.Image
    scale: gr.HTML
    verdicts: gr.HTML
    word: gr.Radio
    layer: gr.Dropdown
    head: gr.Dropdown
    step: gr.Dropdown
    before: gr.Image
    after: gr.Image
    mass: gr.HTML
    curves: gr.HTML
    attacked: gr.DownloadButton
    recipe: gr.DownloadButton
    packed: gr.DownloadButton
    command: gr.Code
    notes: gr.HTML

    @classmethod
    def lay_out(cls) -> _Shown:
        status = gr.HTML(panels.state(_BEGIN), elem_id="status")
        with gr.Tabs():
            with gr.Tab("Result"):
                with gr.Row(equal_height=False):
                    with gr.Column(scale=3, min_width=260):
                        slider = gr.ImageSlider(
                            label="Before and after",
                            type="numpy",
                            format="png",
                            interactive=False,
                            buttons=["fullscreen"],
                        )
                    with gr.Column(scale=2, min_width=220):
                        difference = gr.Image(label="Difference", format="png", interactive=False, buttons=[])
                        scale = gr.HTML()
                verdicts = gr.HTML(elem_classes="as-clip", elem_id="verdicts")
            with gr.Tab("Attention"):
                word = gr.Radio([], label="Word of the prompt", elem_classes="as-words", elem_id="words")
                with gr.Row():
                    layer = gr.Dropdown([("all layers", _ALL)], value=_ALL, label="Layer", min_width=150)
                    head = gr.Dropdown([("all heads", _ALL)], value=_ALL, label="Head", min_width=100)
                    step = gr.Dropdown([("all steps", _ALL)], value=_ALL, label="Step", min_width=100)
                with gr.Row():
                    before = gr.Image(label="Clean", format="png", interactive=False, buttons=[], min_width=220)
                    after = gr.Image(label="Attacked", format="png", interactive=False, buttons=[], min_width=220)
                mass = gr.HTML()
            with gr.Tab("Curves"):
                curves = gr.HTML(panels.state("The curves of losses and margins appear while an attack runs."))
            with gr.Tab("Save"):
                with gr.Row():
                    attacked = gr.DownloadButton("Image (PNG)", interactive=False)
                    recipe = gr.DownloadButton("Recipe (TOML)", interactive=False)
                    packed = gr.DownloadButton("Everything (ZIP)", interactive=False)
                code = gr.Code(
                    label="The same attack as a command",
                    language="shell",
                    interactive=False,
                    wrap_lines=True,
                    show_line_numbers=False,
                    elem_id="command",
                )
                notes = gr.HTML()
            with gr.Tab("Words"):
                gr.HTML(panels.glossary())
        return cls(
            status, slider, difference, scale, verdicts, word, layer, head, step, before, after, mass, curves,
            attacked, recipe, packed, code, notes,
        )  # fmt: skip


@dataclass(frozen=True)
class _Studio:
    """What happens on a click. ``stops`` ends the running attack of a visitor."""

    networks: Networks
    examples: tuple[Path, ...]
    chosen: _Chosen
    shown: _Shown
    stops: dict[str | None, Event] = field(default_factory=dict)

    def connect(self) -> None:
        """Tie the components to what happens."""
        self._connect_input()
        self._connect_attention()
        self._connect_attack()

    def _connect_input(self) -> None:
        chosen, shown = self.chosen, self.shown
        new = [
            chosen.session, chosen.image, chosen.found, chosen.klass, chosen.prompt, chosen.editor, chosen.go,
            *self._results, shown.word, shown.layer, shown.head, shown.step,
        ]  # fmt: skip
        rewording = [chosen.session, chosen.prompt, chosen.preset]
        changes = (
            chosen.image.upload(self.upload, [chosen.image, chosen.preset], new, **_SAID),
            chosen.image.clear(self.clear, None, new, **_QUIET),
            chosen.gallery.select(self.pick, [chosen.preset], new, **_SAID),
            chosen.klass.input(self.rename, [chosen.session, chosen.klass, chosen.preset], new, **_SAID),
            gr.on([chosen.prompt.submit, chosen.prompt.blur], self.reword, rewording, new, **_QUIET),
        )
        for each in changes:
            each.then(self.look, self._reading, self._maps, **_QUIET)
        numbers = [chosen.metric, chosen.limit, chosen.iterations, chosen.classification, *chosen.terms.values()]
        chosen.preset.input(self.change_preset, [chosen.preset], [chosen.preset, *numbers], **_QUIET)
        chosen.metric.input(self.change_metric, [chosen.metric], [chosen.limit], **_QUIET)

    def _connect_attention(self) -> None:
        shown = self.shown
        shown.layer.input(self.change_layer, [self.chosen.session, shown.layer], [shown.head], **_QUIET)
        chosen_by = [each.input for each in (shown.word, shown.layer, shown.head, shown.step)]
        gr.on(chosen_by, self.look, self._reading, self._maps, **_QUIET)

    def _connect_attack(self) -> None:
        chosen = self.chosen
        given = {
            chosen.session, chosen.preset, chosen.metric, chosen.limit, chosen.iterations, chosen.classification,
            chosen.seed, chosen.editor, *chosen.terms.values(),
        }  # fmt: skip
        buttons = [chosen.session, chosen.go, chosen.stop]
        once: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "attack"}
        done = chosen.go.click(self.attack, given, [*buttons, *self._results], **_QUIET, **once)
        done.then(self.look, self._reading, self._maps, **_QUIET)
        chosen.go.click(None, js=_TO_THE_RESULT)
        chosen.stop.click(self.stop, None, [chosen.stop], concurrency_limit=None, **_QUIET)

    @property
    def _reading(self) -> list[Any]:
        """Components that say which attention is shown."""
        shown = self.shown
        return [self.chosen.session, shown.word, shown.layer, shown.head, shown.step]

    @property
    def _maps(self) -> list[Any]:
        return [self.shown.before, self.shown.after, self.shown.mass]

    @property
    def _results(self) -> list[Any]:
        shown = self.shown
        return [
            shown.status, shown.slider, shown.difference, shown.scale, shown.verdicts, shown.curves, shown.attacked,
            shown.recipe, shown.packed, shown.command, shown.notes,
        ]  # fmt: skip

    def upload(self, path: str | None, preset: str) -> Updates:
        """A new image from the visitor's machine."""
        if path is None:
            return self.clear()
        return self._begin(lambda: Session.begin(self.networks, Path(path), load_latent_recipe(preset)))

    def pick(self, preset: str, event: gr.SelectData) -> Updates:
        """One of the images at hand."""
        path = self.examples[int(event.index)]
        begun = self._begin(lambda: Session.begin(self.networks, path, load_latent_recipe(preset), f"{path.stem}.png"))
        session = begun.get(self.chosen.session)
        return begun if session is None else begun | {self.chosen.image: pictures.enlarged(session.pixels)}

    def clear(self) -> Updates:
        chosen, shown = self.chosen, self.shown
        return self._no_result() | {
            chosen.session: None,
            chosen.found: "",
            chosen.klass: None,
            chosen.prompt: "",
            chosen.editor: None,
            chosen.go: gr.Button(interactive=False),
            shown.status: panels.state(_BEGIN),
            shown.verdicts: "",
            shown.word: gr.Radio([], value=None),
        }

    def rename(self, session: Session | None, label: int | None, preset: str) -> Updates:
        """Another true class."""
        if session is None or label is None or label == session.label:
            return {}
        return self._begin(lambda: session.of_class(self.networks, label, load_latent_recipe(preset)))

    def reword(self, session: Session | None, prompt: str, preset: str) -> Updates:
        """Another prompt."""
        prompt = " ".join(prompt.split())
        if session is None or prompt == session.prompt:
            return {}
        return self._begin(lambda: session.under(self.networks, prompt, load_latent_recipe(preset)))

    def _begin(self, read: Callable[[], Session]) -> Updates:
        """What is shown of an image of which all has been ``read``, before an attack."""
        chosen, shown = self.chosen, self.shown
        try:
            session = self.networks.ask(read)
        except UserError as error:
            return {shown.status: panels.wrong(error)}
        attention = session.attention
        word = _place(attention.words, self.networks.classes[session.label])
        return self._no_result() | {
            chosen.session: session,
            chosen.found: panels.found(session.guesses),
            chosen.klass: session.label,
            chosen.prompt: session.prompt,
            chosen.editor: {"background": pictures.enlarged(session.pixels), "layers": [], "composite": None},
            chosen.go: gr.Button(interactive=True),
            shown.status: panels.state(_READY),
            shown.verdicts: panels.verdicts(session.verdicts),
            shown.word: gr.Radio([(each, at) for at, each in enumerate(attention.words)], value=word),
            shown.layer: gr.Dropdown(_numbered("all layers", attention.layers), value=_ALL),
            shown.head: gr.Dropdown(_numbered("all heads", ()), value=_ALL),
            shown.step: gr.Dropdown(_numbered("all steps", range(1, attention.steps + 1)), value=_ALL),
        }

    def _no_result(self) -> Updates:
        shown = self.shown
        off = gr.DownloadButton(interactive=False, value=None)
        return {
            shown.slider: None,
            shown.difference: None,
            shown.scale: "",
            shown.curves: "",
            shown.attacked: off,
            shown.recipe: off,
            shown.packed: off,
            shown.command: "",
            shown.notes: "",
        }

    def change_preset(self, preset: str) -> Updates:
        """The numbers of another preset."""
        chosen, recipe = self.chosen, load_latent_recipe(preset)
        metric = recipe.budget.metric if recipe.budget.metric in LIMITS else NO_BUDGET
        highest = max(100, recipe.optimiser.iterations)
        weight = recipe.classification.weight
        sliders = {
            chosen.terms[each.name]: gr.Slider(
                maximum=each.highest, value=each.weight, step=each.step, visible=each.offered
            )
            for each in knobs(recipe)
        }
        return sliders | {
            chosen.preset: gr.Dropdown(info=recipe.summary),
            chosen.metric: metric,
            chosen.limit: gr.Slider(**_limits(metric, recipe.budget.limit)),
            chosen.iterations: gr.Slider(value=recipe.optimiser.iterations, maximum=highest),
            chosen.classification: gr.Slider(value=weight, maximum=max(20, 2 * weight)),
        }

    def change_metric(self, metric: str) -> Updates:
        return {self.chosen.limit: gr.Slider(**_limits(metric))}

    def change_layer(self, session: Session | None, layer: int) -> Updates:
        heads = 0 if session is None else session.attention.heads(None if layer == _ALL else layer)
        return {self.shown.head: gr.Dropdown(_numbered("all heads", range(1, heads + 1)), value=_ALL)}

    def look(self, session: Session | None, word: int | None, layer: int, head: int, step: int) -> Updates:
        """Attention over the clean image and over the attacked one, in one scale."""
        shown = self.shown
        if session is None or word is None or word >= len(session.attention.words):
            return {shown.before: None, shown.after: None, shown.mass: ""}
        where = [None if each == _ALL else each for each in (layer, head, step)]
        before = session.attention.map(word, *where)
        finished = session.finished
        after = None if finished is None else finished.attention.map(word, *where)
        highest = float(max(each.max() for each in (before, after) if each is not None))
        named = session.attention.words[word]
        shares = (
            f"{before.mean():.1%}" if after is None else f"{before.mean():.1%}, after the attack {after.mean():.1%}"
        )
        return {
            shown.before: pictures.overlay(session.pixels, before, highest),
            shown.after: None
            if finished is None or after is None
            else pictures.overlay(finished.pixels, after, highest),
            shown.mass: panels.state(f"Share of all attention that goes to “{named}”: {shares}"),
        }

    def stop(self, request: gr.Request) -> Updates:
        """End the visitor's attack after its iteration."""
        event = self.stops.get(request.session_hash)
        if event is not None:
            event.set()
        return {self.chosen.stop: gr.Button("Stopping …", interactive=False)}

    def attack(self, given: Mapping[Any, Any], request: gr.Request) -> Iterator[Updates]:
        """Carry the attack out that the values of the components ``given`` describe, and show it on
        the way."""
        chosen, shown = self.chosen, self.shown
        session: Session | None = given[chosen.session]
        if session is None:
            yield {shown.status: panels.state(_BEGIN)}
            return
        mask = pictures.painted(given[chosen.editor], self.networks.size)
        stop = self.stops[request.session_hash] = Event()
        yield self._no_result() | {
            shown.status: panels.state("Preparing: the image is inverted …", 0.0),
            shown.verdicts: panels.verdicts(session.verdicts),
            chosen.go: gr.Button(interactive=False),
            chosen.stop: gr.Button("Stop and keep", interactive=True),
        }
        rested = {
            chosen.go: gr.Button(interactive=True),
            chosen.stop: gr.Button("Stop and keep", interactive=False),
        }
        try:
            recipe = chosen_recipe(self._choices(given, session, mask is not None))
            order = session.order(self.networks, recipe, mask)
            for told in attack_image(self.networks, order, stop, self.networks.options.out):
                if isinstance(told, Finished):
                    yield rested | self._finished(session, told)
                else:
                    yield self._running(session, told)
        except UserError as error:
            yield rested | {shown.status: panels.wrong(error)}
        except Exception:
            yield rested | {shown.status: panels.state(_BROKEN, kind="bad")}
            raise
        finally:
            self.stops.pop(request.session_hash, None)

    def _choices(self, given: Mapping[Any, Any], session: Session, masked: bool) -> AttackChoices:
        chosen = self.chosen
        return AttackChoices(
            preset=given[chosen.preset],
            class_name=self.networks.classes[session.label],
            prompt=session.prompt,
            metric=given[chosen.metric],
            limit=float(given[chosen.limit]),
            iterations=int(given[chosen.iterations]),
            classification=float(given[chosen.classification]),
            terms={name: float(given[slider]) for name, slider in chosen.terms.items()},
            seed=int(given[chosen.seed] or 0),
            masked=masked,
        )

    def _running(self, session: Session, told: AttackProgress) -> Updates:
        shown = self.shown
        fooled = sum(margin < 0 for margin in told.margins[-1].values())
        text = f"Iteration {told.iteration} of {told.iterations}: {fooled} of {len(told.margins[-1])} surrogates fooled"
        return {
            shown.status: panels.state(text, told.iteration / told.iterations),
            shown.slider: (pictures.enlarged(session.pixels), pictures.enlarged(told.pixels)),
            shown.curves: _curves(told),
        }

    def _finished(self, session: Session, done: Finished) -> Updates:
        shown = self.shown
        change, largest, factor = pictures.difference(session.pixels, done.pixels)
        files = {
            shown.attacked: done.folder.attacked,
            shown.recipe: done.folder.recipe,
            shown.packed: done.folder.pack(done.arguments),
        }
        return {
            self.chosen.session: session.after(done),
            shown.status: panels.state(*panels.summary(done.verdicts, done.stopped_after)),
            shown.slider: (pictures.enlarged(session.pixels), pictures.enlarged(done.pixels)),
            shown.difference: pictures.enlarged(change),
            shown.scale: panels.scale(largest, factor),
            shown.verdicts: panels.verdicts(done.verdicts),
            shown.command: command(done.folder, done.arguments),
            shown.notes: panels.notes(done.notes),
        } | {button: gr.DownloadButton(value=_offered(path), interactive=True) for button, path in files.items()}


def _offered(path: Path) -> str:
    """A copy of ``path`` where the page may read it, so that it need not read the folder of all
    attacks."""
    return shutil.copy(path, tempfile.mkdtemp(prefix="attnshift-"))


def _curves(told: AttackProgress) -> str:
    margins = panels.curves("Margins, in logits", panels.by_name(told.margins), told.iterations, "fooled below 0")
    return panels.curves("Losses, weighted", panels.by_name(told.losses), told.iterations) + margins


def _limits(metric: str, value: float | None = None) -> dict[str, Any]:
    """Arguments of the slider for the limit of ``metric``, at ``value`` or the usual limit."""
    if metric not in LIMITS:
        return {"minimum": 0, "maximum": 1, "value": 0, "step": 0.01, "interactive": False}
    limits = LIMITS[metric]
    return {
        "minimum": limits.low,
        "maximum": limits.high,
        "value": value or limits.usual,
        "step": limits.step,
        "interactive": True,
    }


def _numbered(everything: str, names: Sequence[object]) -> list[tuple[str, int]]:
    return [(everything, _ALL), *((str(each), at) for at, each in enumerate(names))]


def _place(words: Sequence[str], class_name: str) -> int:
    """Place of the first word of the class name; the last word where it is not there."""
    first = class_name.split()[0] if class_name.split() else ""
    return words.index(first) if first in words else len(words) - 1
