"""Terms, sites, heads and steps that an inspection finds in a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from attnshift.errors import UserError
from attnshift.losses import TERMS
from attnshift.recipes.reading import load_latent_recipe
from attnshift.studies.inspection.probes import find_probes

if TYPE_CHECKING:
    from attnshift.diffusion.stable_diffusion import StableDiffusion

RECIPE = load_latent_recipe("fast", ["diffusion.denoising_steps=3", "terms.entropy.weight=0"])


def test_every_term_is_measured(backbone: StableDiffusion) -> None:
    found = find_probes(RECIPE, backbone, 64)
    left_out = [line for line in found.remarks if "left out" in line]
    assert len(found.names) + len(left_out) == len(TERMS)
    assert {each.name for each in found.terms} == set(found.names)


def test_sites_are_those_of_the_model(backbone: StableDiffusion) -> None:
    """The tiny model has grids 8, 4 and 2, and its middle block the smallest: no others are looked for."""
    found = find_probes(RECIPE, backbone, 64, ("entropy",))
    sites = {(site.place, site.grid.rows) for site in backbone.sites(64) if site.kind == "cross"}
    assert {(each.place, each.side) for each in found.terms if each.side} == sites
    assert {(each.group.place, each.group.side) for each in found.maps} == sites
    assert {each.step for each in found.terms} == {-1, 0, 1, 2}
    assert {each.head for each in found.terms} == {-1}


def test_each_head_alone(backbone: StableDiffusion) -> None:
    found = find_probes(RECIPE, backbone, 64, ("entropy",), heads=True)
    heads = {site.grid.rows: site.heads for site in backbone.sites(64) if site.kind == "cross"}
    for side, count in heads.items():
        wanted = {-1, *range(count)} if count > 1 else {-1}
        assert {each.head for each in found.terms if each.side == side} == wanted


def test_a_term_has_the_options_of_the_recipe_and_those_that_are_given(backbone: StableDiffusion) -> None:
    recipe = load_latent_recipe("seed", ["terms.contrast.delta=0.4"])
    found = find_probes(recipe, backbone, 64, ("contrast", "contrast,form=log"))
    terms = {each.name: each.term for each in found.terms}
    assert [(name, term.form, term.delta) for name, term in terms.items()] == [  # type: ignore[union-attr]
        ("contrast", "share", 0.4),
        ("contrast,form=log", "log", 0.4),
    ]


def test_self_attention_is_read_at_every_grid(backbone: StableDiffusion) -> None:
    found = find_probes(RECIPE, backbone, 512, ("self_attention",))
    assert max(each.side for each in found.terms) == 64
    assert not found.remarks


@pytest.mark.parametrize(
    ("terms", "complaint"),
    [
        (("entropie",), "unknown term 'entropie'; did you mean 'entropy'"),
        (("contrast,form",), "expected NAME or NAME,key=value"),
        (("contrast,form=square",), "term 'contrast'"),
        (("contrast,tokens=joint",), "give a prompt.template that names both"),
    ],
)
def test_terms_that_cannot_be_meant(backbone: StableDiffusion, terms: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        find_probes(RECIPE, backbone, 64, terms)
