"""A recipe turned into what carries it out: the surrogates' way back."""

from __future__ import annotations

import pytest
import torch

from attnshift.attack.method import Method
from attnshift.attack.remarks import idle_through
from attnshift.classifiers.classifier import Classifier
from attnshift.ensemble.surrogates import Surrogates
from attnshift.errors import ModelError
from attnshift.recipes.reading import load_latent_recipe
from attnshift.types import Goals, RandomKey


def surrogates(classifier: Classifier, *changes: str) -> Surrogates:
    method = Method.of(load_latent_recipe("quick", changes))
    goals, key = Goals(torch.tensor([1, 2])), RandomKey(0, ("a", "b"), 0)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return method.surrogates([classifier], goals, images, key)


def test_the_way_back_is_the_networks_own_unless_a_recipe_changes_it(classifiers: list[Classifier]) -> None:
    assert surrogates(classifiers[0]).backward == ()
    (damped,) = surrogates(classifiers[0], "classification.skip_decay=0.5").backward
    assert (damped.skip_decay, damped.relu_leak, damped.layer) == (0.5, 0.0, None)
    (leaking,) = surrogates(classifiers[0], "classification.relu_leak=0.1").backward
    assert (leaking.skip_decay, leaking.relu_leak) == (1.0, 0.1)
    (pulled,) = surrogates(classifiers[0], "features.share=2", "features.layer=layer3").backward
    assert pulled.layer is classifiers[0].network.get_submodule("layer3")
    assert (pulled.skip_decay, pulled.share) == (1.0, 2.0)
    assert pulled.weights is not None
    assert pulled.weights.flatten(1).norm(dim=1).tolist() == pytest.approx([1.0, 1.0])


def test_what_cannot_act_on_a_surrogate_is_said(classifiers: list[Classifier]) -> None:
    method = Method.of(load_latent_recipe("quick", ["classification.relu_leak=0.1"]))
    (line,) = idle_through(method, classifiers[:2])
    assert line == "classification.relu_leak changes nothing in random:test_convnext, which has no rectifiers"
    assert not [*idle_through(Method.of(load_latent_recipe("quick")), classifiers)]


def test_a_layer_that_no_network_has_is_refused(classifiers: list[Classifier]) -> None:
    with pytest.raises(ModelError, match=r"random:test_resnet' has no layer 'layer9'; some that it has are "):
        surrogates(classifiers[0], "features.share=1", "features.layer=layer9")
