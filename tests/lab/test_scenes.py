"""Scenes as pure functions of (seed, split, index)."""

from __future__ import annotations

import pytest

from attnshift.lab.scenes import CLASSES, COLOURS, FLOORS, SPLITS, scene


def test_a_scene_depends_on_its_names_alone() -> None:
    first = scene(0, "test", 7)
    scene(0, "test", 8)
    assert scene(0, "test", 7) == first


def test_seeds_splits_and_indices_differ() -> None:
    names = [(seed, split, index) for seed in (0, 1) for split in SPLITS for index in range(0, 200, len(CLASSES))]
    scenes = [scene(*each) for each in names]
    assert len({each.label for each in scenes}) == 1
    assert len(set(scenes)) == len(names)
    assert len({each.object_yaw for each in scenes}) == len(names)


def test_labels_take_turns() -> None:
    assert [scene(3, "tuning", index).label for index in range(25)] == [index % 10 for index in range(25)]
    assert len(CLASSES) == 10
    assert scene(0, "train", 13).class_name == CLASSES[3]


def test_captions_hold_the_class_and_read_as_english() -> None:
    for index in range(100):
        shown = scene(0, "train", index)
        assert all(shown.class_name in caption.split() for caption in shown.captions)
        assert shown.captions[-1] == shown.class_name
        article = "an" if shown.colour == "orange" else "a"
        assert shown.captions[0].startswith(f"a photo of {article} {shown.colour} {shown.class_name} on ")
        lengths = [len(caption) for caption in shown.captions]
        assert lengths[0] == max(lengths)


def test_every_colour_and_floor_occurs_with_every_class() -> None:
    scenes = [scene(0, "train", index) for index in range(2000)]
    assert {(each.label, each.colour) for each in scenes} == {(c, n) for c in range(10) for n in COLOURS}
    assert {(each.label, each.floor) for each in scenes} == {(c, n) for c in range(10) for n in FLOORS}


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown split 'val'.*train, tuning, test"):
        scene(0, "val", 0)
