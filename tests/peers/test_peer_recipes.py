"""A peer's recipe: complete, strict, and scaled by its strength."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w

from attnshift.attack.recipe import Recipe
from attnshift.errors import RecipeError
from attnshift.peers import PEERS
from attnshift.peers.method import PeerMethod
from attnshift.peers.pixel import MIFGSM
from attnshift.peers.recipe import PeerRecipe, at_strength, load_recipe

BAD = {
    "an option that it has not": ("peer.epsilom=0.1", "peer 'mifgsm': epsilom: "),
    "a radius of 0": ("peer.epsilon=0", "peer 'mifgsm': epsilon: .*greater than 0"),
    "steps as a boolean": ("peer.steps=true", "peer 'mifgsm': steps: "),
    "an unknown peer": ("peer.attack=mifsgm", "unknown peer 'mifsgm'; did you mean 'mifgsm'"),
    "a section of our attack": ("optimiser.iterations=3", "recipe mifgsm: optimiser: "),
    "a negative seed": ("seed=-1", "recipe mifgsm: seed: "),
}


def peer(source: str, *settings: str) -> PeerRecipe:
    recipe = load_recipe(source, settings)
    assert isinstance(recipe, PeerRecipe)
    return recipe


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_has_a_complete_recipe(name: str) -> None:
    recipe = peer(name)
    assert recipe.name == recipe.peer.attack == name
    attack = PeerMethod.of(recipe).attack
    assert recipe.peer.options["epsilon"] == attack.epsilon
    assert attack == PEERS[name].load()()


def test_presets_are_recipes_of_our_own() -> None:
    assert isinstance(load_recipe("fast", ["seed=3"]), Recipe)


def test_a_file_may_describe_a_peer(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n[peer]\nattack = "mifgsm"\nepsilon = 0.02\n')
    recipe = peer(str(path), "peer.steps=4")
    assert PeerMethod.of(recipe).attack == MIFGSM(epsilon=0.02, steps=4)
    values = recipe.model_dump(mode="json")
    values["peer"] = {key: value for key, value in values["peer"].items() if value is not None}
    path.write_text(tomli_w.dumps(values))
    assert peer(str(path)) == recipe, "what a run writes down can be run again"


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_meant_is_refused_in_a_line(name: str) -> None:
    setting, message = BAD[name]
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe("mifgsm", [setting])
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_compared_with_presets_and_peers() -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'mifgsm'.*strong.*pgd"):
        load_recipe("mifgms")


def test_strength_scales_the_radius_and_a_given_step() -> None:
    half = at_strength(peer("pgd"), 0.5)
    assert isinstance(half, PeerRecipe)
    assert half.name == "pgd@0.5"
    assert half.peer.options["epsilon"] == pytest.approx(4 / 255)
    assert half.peer.options["step_size"] == pytest.approx(1 / 255)
    whole = peer("mifgsm")
    assert at_strength(whole, 1.0) is whole
    half = at_strength(whole, 0.5)
    assert isinstance(half, PeerRecipe)
    assert half.peer.options | {"epsilon": 16 / 255} == whole.peer.options
    with pytest.raises(RecipeError, match="epsilon"):
        at_strength(whole, 100.0)
