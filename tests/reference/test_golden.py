"""What makes the attack faster must not move its losses: preset ``diffattack`` in fp32 against stored numbers.

A change that is meant to move them writes them anew with the command in tests/reference/golden.py.
"""

from __future__ import annotations

import json

import pytest

from later import later

golden = later("reference.golden")


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_losses_are_the_stored_ones(prediction_type: str) -> None:
    assert prediction_type in golden.PREDICTION_TYPES
    stored = json.loads(golden.GOLDEN.read_text())[prediction_type]
    found = golden.golden_losses(prediction_type)
    assert found.keys() == stored.keys() == {"classification", "variance", "self_attention"}
    for name, images in stored.items():
        # Before the first update both branches are one, and the self-attention loss is zero.
        expected = [pytest.approx(values, rel=1e-5, abs=1e-9) for values in images]
        assert found[name] == expected, name
