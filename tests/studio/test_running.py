"""An attack of the studio gives the bytes of the command that it shows."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from threading import Event

import numpy
import pytest
from typer.testing import CliRunner

from attnshift.cli import app
from attnshift.lab.export import export_images
from attnshift.recipes.reading import load_latent_recipe, load_recipe
from attnshift.studio.folder import command
from attnshift.studio.networks import Networks, StudioOptions
from attnshift.studio.running import AttackProgress, Finished, attack_image
from attnshift.studio.session import Session

pytestmark = pytest.mark.heavy

SHORT = ["optimiser.iterations=4", "expectation.draws=2"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    out = tmp_path_factory.mktemp("studio")
    made = Networks(StudioOptions(out=out, surrogates=("lab:resnet",), judges=("lab:coatnet", "lab:rerender")))
    made.ask(made.load)
    return made


@pytest.fixture(scope="module")
def session(networks: Networks) -> Session:
    folder = networks.options.out / "lab"
    export_images(folder, seed=0, split="test", count=1)
    (path,) = folder.glob("*.png")
    return networks.ask(lambda: Session.begin(networks, path, load_latent_recipe("fast"), path.name))


def carried_out(networks: Networks, told: Iterator[AttackProgress | Finished], stop: Event, after: int) -> Finished:
    """The end of an attack that is stopped once it has told of the iteration ``after``."""
    for each in told:
        if isinstance(each, Finished):
            return each
        if each.iteration >= after:
            stop.set()
    raise AssertionError("the attack has not ended")


@pytest.mark.parametrize(
    ("settings", "masked", "after"),
    [(SHORT, False, 99), ([*SHORT, "mask.source=given", "mask.paste_back=true"], True, 99), (SHORT, False, 0)],
    ids=["whole", "masked", "stopped"],
)
def test_the_command_gives_the_same_bytes(
    networks: Networks, session: Session, settings: list[str], masked: bool, after: int
) -> None:
    mask = None
    if masked:
        mask = numpy.zeros(session.pixels.shape[:2], numpy.uint8)
        mask[:, :32] = 255
    stop = Event()
    order = session.order(networks, load_latent_recipe("fast", settings), mask)
    done = carried_out(networks, attack_image(networks, order, stop, networks.options.out), stop, after)
    assert (done.stopped_after > 0) == (after == 0)
    assert load_recipe(str(done.folder.recipe)) == done.recipe
    if masked:
        assert numpy.array_equal(done.pixels[:, 32:], session.pixels[:, 32:])
    words = shlex.split(command(done.folder, done.arguments).replace("\\\n", " "))
    again = CliRunner().invoke(app, words[1:])
    assert again.exit_code == 0, again.output
    (image,) = (done.folder.run / "images").glob("*.attack.png")
    assert image.read_bytes() == done.folder.attacked.read_bytes()


def test_the_page_knows_class_words_and_verdicts_of_an_image(networks: Networks, session: Session) -> None:
    assert networks.classes[session.label] in session.prompt
    assert session.attention.words == tuple(session.prompt.split())
    assert [each.role for each in session.verdicts] == ["surrogate", "judge", "judge"]
    assert all(each.knows for each in session.verdicts)
    uploaded = networks.ask(
        lambda: replace(session, name="image.png").of_class(networks, 0, load_latent_recipe("fast"))
    )
    assert "lab:rerender knows the scenes" in uploaded.verdicts[-1].unable
