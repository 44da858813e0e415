"""What every entry of ``metrics.METRICS``, ``SETS``, ``VISIBILITY`` and ``FEATURES`` must do."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnshift.classifiers import load_classifier
from attnshift.errors import UnavailableError
from attnshift.metrics import FEATURES, METRICS, SETS, VISIBILITY
from attnshift.registry import load, look_up
from attnshift.testing import check_features, check_metric, check_set_metric, check_visibility
from hubs import empty_hubs
from later import later

source = later("attnshift.metrics.features")

NEEDS_WEIGHTS = ("lpips-squeeze", "lpips-alex", "lpips-vgg", "dists")


@pytest.mark.parametrize("name", METRICS)
def test_contract_of_metrics(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_hubs(tmp_path, monkeypatch)
    metric = look_up(METRICS, name)
    if name in NEEDS_WEIGHTS:
        # With weights it is held to the same in tests/metrics/test_metrics.py.
        with pytest.raises(UnavailableError, match="needs torchvision's"):
            check_metric(metric)
    else:
        check_metric(metric, 176 if name == "ms_ssim" else 64)


@pytest.mark.parametrize("name", SETS)
def test_contract_of_set_metrics(name: str) -> None:
    check_set_metric(load(SETS, name)())


@pytest.mark.parametrize("name", VISIBILITY)
def test_contract_of_visibility(name: str) -> None:
    check_visibility(look_up(VISIBILITY, name))


@pytest.mark.parametrize("name", FEATURES)
def test_contract_of_features_without_weights(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_hubs(tmp_path, monkeypatch)
    features = look_up(FEATURES, name)()
    assert features.width > 0
    with pytest.raises(UnavailableError) as refused:
        check_features(features)
    assert "\n" not in str(refused.value)


def test_contract_of_features() -> None:
    check_features(source.classifier_features(load_classifier("random:test_resnet")))
