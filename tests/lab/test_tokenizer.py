"""The lab's vocabulary as a genuine CLIP tokenizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from attnshift.lab.scenes import CLASSES, COLOURS, scene
from later import later

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

transformers = later("transformers")
tokenizer = later("attnshift.lab.tokenizer")


@cache
def lab() -> CLIPTokenizer:
    return tokenizer.build_tokenizer()


def test_every_class_is_one_or_two_tokens_also_inside_a_caption() -> None:
    counts = {}
    for name in CLASSES:
        tokens = lab().tokenize(name)
        assert "".join(tokens) == f"{name}</w>"
        assert lab().tokenize(f"a photo of a {name} on the grass")[4 : 4 + len(tokens)] == tokens
        counts[name] = len(tokens)
    assert set(counts.values()) == {1, 2}
    assert {name for name, count in counts.items() if count == 2} == {"snowman", "mushroom", "dumbbell"}


def test_captions_are_one_token_per_word_and_fit() -> None:
    for index in range(200):
        shown = scene(0, "train", index)
        for caption in shown.captions:
            extra = len(lab().tokenize(shown.class_name)) - 1
            codes = lab()(caption).input_ids
            assert len(codes) == len(caption.split()) + extra + 2 <= tokenizer.MAX_LENGTH


@pytest.mark.parametrize(
    "text", [*CLASSES, *COLOURS, "a photo of a red mug on a wooden floor", "Zebra 42, naïve 日本 😀"]
)
def test_saved_tokenizer_reads_alike(tmp_path: Path, text: str) -> None:
    lab().save_pretrained(tmp_path)
    loaded = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    assert loaded(text).input_ids == lab()(text).input_ids
    assert loaded.model_max_length == tokenizer.MAX_LENGTH
    assert len(loaded) == len(lab())
    assert (loaded.bos_token_id, loaded.eos_token_id) == (lab().bos_token_id, lab().eos_token_id)


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_read_without_unknown_tokens(text: str) -> None:
    # The text of a special token is that token, also in Stable Diffusion.
    assume("<|" not in text)
    codes = lab()(text).input_ids
    assert (codes[0], codes[-1]) == (lab().bos_token_id, lab().eos_token_id)
    special = {lab().bos_token_id, lab().eos_token_id, lab().unk_token_id}
    assert not special & set(codes[1:-1])
    assert max(codes) < len(lab())
    if text.strip(" ").isprintable() and text.strip():
        assert len(codes) > 2


@pytest.mark.parametrize("text", ["日本", "naïve", "😀", "zebra"])
def test_text_outside_the_vocabulary_can_be_read_back(text: str) -> None:
    assert lab().decode(lab()(text).input_ids, skip_special_tokens=True).strip() == text
