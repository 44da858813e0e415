"""Files and weights of others, read as data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from attnshift.errors import ModelError
from attnshift.untrusted import check_finite, read_json, read_object, reason, safetensors_shapes
from planted import declare_giant


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("at", [0, 5, 11])
def test_a_value_that_is_not_finite_is_found_wherever_it_stands(dtype: torch.dtype, value: float, at: int) -> None:
    weights = {"whole": torch.ones(3, 4, dtype=dtype), "b": torch.ones(3, 4, dtype=dtype)}
    check_finite(weights, "mine")
    weights["b"].view(-1)[at] = value
    with pytest.raises(ModelError, match=r"^mine: b has values that are not finite \(1 such entries\); take undamaged"):
        check_finite(weights, "mine")


def test_whole_numbers_and_nothing_are_finite() -> None:
    check_finite({"count": torch.tensor(3), "empty": torch.zeros(0), "mask": torch.ones(2, dtype=torch.bool)}, "mine")


def test_shapes_come_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file({"a": torch.zeros(2, 3), "b": torch.tensor(1.0)}, path)
    assert safetensors_shapes(path) == {"a": (2, 3), "b": ()}
    declare_giant(path)
    with pytest.raises(ModelError, match=r"is not a safetensors file, or is cut off .*not fully covered"):
        safetensors_shapes(path)
    with pytest.raises(ModelError, match="there is no file"):
        safetensors_shapes(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "\xff", "9" * 5000], ids=["empty", "cut", "deep", "latin", "long"]
)
def test_what_is_no_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=r"config\.json is not a JSON file: ") as caught:
        read_json(tmp_path / "config.json")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["nothing", "folder", "device", "loop"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.json"
    if kind == "folder":
        path.mkdir()
    elif kind != "nothing":
        path.symlink_to("/dev/zero" if kind == "device" else path)
    with pytest.raises(ModelError, match=r"there is no file .*config\.json"):
        read_json(path)


@pytest.mark.parametrize("text", ["[1]", "null", "3", '"x"'])
def test_what_is_no_object(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"holds a \w+; expected a JSON object"):
        read_object(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("one\ntwo"), "one"),
        (RuntimeError("cannot load:\n\tone\n\ttwo"), "cannot load: one"),
        (RuntimeError("cannot load:"), "cannot load:"),
        (MemoryError(), "MemoryError"),
        (ValueError("\n\n"), "ValueError"),
    ],
)
def test_a_reason_is_one_line(error: Exception, expected: str) -> None:
    assert reason(error) == expected
