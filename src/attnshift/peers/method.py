"""A peer's recipe turned into the object that carries it out."""

from __future__ import annotations

from dataclasses import dataclass

from attnshift.peers import PEERS
from attnshift.peers.pixel import Peer
from attnshift.peers.recipe import PeerRecipe
from attnshift.tables import build

__all__ = ["PeerMethod"]


@dataclass(frozen=True)
class PeerMethod:
    recipe: PeerRecipe
    attack: Peer

    @classmethod
    def of(cls, recipe: PeerRecipe) -> PeerMethod:
        """Build what ``recipe`` names, or raise ``RecipeError``."""
        return cls(recipe, build(PEERS, "peer", recipe.peer.attack, recipe.peer.options))
