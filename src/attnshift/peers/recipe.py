"""A peer as data, and recipes of either kind by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from attnshift.attack.recipe import (
    OpenSection,
    Recipe,
    Section,
    override,
    preset_names,
    read_recipe_file,
    unknown_preset,
    validate,
)
from attnshift.attack.recipe import load_recipe as load_latent_recipe
from attnshift.peers import PEERS

__all__ = ["AnyRecipe", "PeerRecipe", "at_strength", "load_recipe"]


class PeerSection(OpenSection):
    attack: str


class PeerRecipe(Section):
    """Complete description of an attack on pixels: ``peer.attack`` is a name in ``PEERS``, beside its options."""

    name: str
    summary: str = ""
    seed: int = Field(default=0, ge=0, lt=2**64)
    tuned_on: tuple[str, ...] = ()
    """Classifiers that chose its numbers; they cannot judge it."""
    peer: PeerSection


def _kind(recipe: Any) -> str:
    is_peer = "peer" in recipe if isinstance(recipe, Mapping) else isinstance(recipe, PeerRecipe)
    return "peer" if is_peer else "latent"


AnyRecipe = Annotated[Annotated[Recipe, Tag("latent")] | Annotated[PeerRecipe, Tag("peer")], Discriminator(_kind)]


def load_recipe(source: str, settings: Iterable[str] = ()) -> Recipe | PeerRecipe:
    """The preset or peer called ``source``, or the TOML file at that path, with ``key.path=value`` settings applied.

    A file with a section ``[peer]`` describes an attack on pixels. A peer's recipe comes back with all of its options.
    """
    if source in PEERS:
        return _peer({"name": source, "summary": PEERS[source].summary, "peer": {"attack": source}}, settings, source)
    if source.endswith(".toml"):
        values = read_recipe_file(source)
        return _peer(values, settings, source) if "peer" in values else validate(override(values, settings), source)
    if source not in preset_names():
        raise unknown_preset(source, [*preset_names(), *PEERS])
    return load_latent_recipe(source, settings)


def at_strength(recipe: Recipe | PeerRecipe, strength: float) -> Recipe | PeerRecipe:
    """``recipe`` with ``strength`` times its learning rate, or a peer with so many times its radius and step size.

    Either scales how far every step goes; at 1 the recipe is as it stands.
    """
    if strength == 1:
        return recipe
    values = recipe.model_dump(mode="json")
    values["name"] = f"{recipe.name}@{strength:g}"
    if isinstance(recipe, Recipe):
        values["optimiser"]["learning_rate"] *= strength
        return validate(values, values["name"])
    for key in ("epsilon", "step_size"):
        if values["peer"].get(key) is not None:
            values["peer"][key] *= strength
    return _peer(values, (), values["name"])


def _peer(values: Mapping[str, Any], settings: Iterable[str], source: str) -> PeerRecipe:
    from attnshift.peers.method import PeerMethod

    recipe = validate(override(values, settings), source, PeerRecipe)
    peer = PeerMethod.of(recipe).attack
    return recipe.model_copy(update={"peer": PeerSection(attack=recipe.peer.attack, **asdict(peer))})
