"""Files of ratings: what one person answered about images of a run, as the rating page saves it.

A run keeps them in its folder ``ratings``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from attnshift.errors import RunError
from attnshift.files import reading
from attnshift.registry import STRICT, describe
from attnshift.results.store import Store
from attnshift.terminal import plural

__all__ = ["RATINGS_FOLDER", "RATINGS_FORMAT", "RATING_QUESTIONS", "Rating", "RatingFile", "ratings_of", "read_ratings"]

RATINGS_FOLDER = "ratings"
RATINGS_FORMAT = 1
"""Version of a file of ratings."""

_LARGEST = 2**22
"""Largest size of a file, in bytes: some forty thousand answers."""

RATING_QUESTIONS: dict[str, tuple[str, ...]] = {
    "label": ("yes", "no", "cannot say"),
    "other": ("yes", "no", "cannot say"),
    "original": ("clean", "changed"),
}
"""Question -> its answers. ``label``: does the image of an arm show its true class? ``other``: does
the clean image show another class of the run? ``original``: which of the clean image and that of an
arm is the original? Its arm ``blurred`` is the clean image, blurred by the page."""


class Rating(BaseModel):
    """One answer of a rater."""

    model_config = STRICT

    id: str = Field(min_length=1, max_length=64)
    question: Literal["label", "other", "original"]
    arm: Literal["clean", "reconstruction", "attack", "blurred"]
    answer: str
    milliseconds: int = Field(ge=0)

    @model_validator(mode="after")
    def _is_one_that_the_page_gives(self) -> Self:
        arms = {"label": ("clean", "reconstruction", "attack"), "other": ("clean",)}
        if self.answer not in RATING_QUESTIONS[self.question]:
            raise ValueError(f"'{self.answer}' is no answer to the question '{self.question}'")
        if self.arm not in arms.get(self.question, ("reconstruction", "attack", "blurred")):
            raise ValueError(f"the question '{self.question}' is not asked about the arm '{self.arm}'")
        return self


class RatingFile(BaseModel):
    """Answers of one rater, in the order in which they were given."""

    model_config = STRICT

    format: Literal[1]
    run: str
    """Digest of the run."""
    seed: int = Field(ge=0)
    rater: str = Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")
    order: int = Field(ge=0)
    """Number of the order in which the page asked."""
    trials: int = Field(ge=1)
    """Questions of the whole session; fewer answers are a session that was stopped."""
    answers: tuple[Rating, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _answers_each_question_once(self) -> Self:
        seen = {(each.id, each.question == "original") for each in self.answers}
        if len(seen) < len(self.answers):
            raise ValueError("an image is answered twice in one round")
        return self


def read_ratings(paths: Iterable[Path], run: str | None = None) -> tuple[RatingFile, ...]:
    """The files ``paths``, each of another rater and all about one run: that with the digest
    ``run``, where it is given. A ``RunError`` names the first file that does not fit."""
    files: list[RatingFile] = []
    paths = list(paths)
    for path in paths:
        file = _read(path)
        wanted = run or (files[0].run if files else file.run)
        if file.run != wanted:
            raise RunError(f"{path} is about the run {file.run}, not {wanted}; give files about one run")
        before = next((other for other, each in zip(paths, files, strict=False) if each.rater == file.rater), None)
        if before is not None:
            raise RunError(f"{path} is of the rater {file.rater}, as is {before}; give one file a rater")
        files.append(file)
    return tuple(files)


def ratings_of(store: Store) -> tuple[RatingFile, ...]:
    """The files in the folder ``ratings`` of a run; none where nobody was asked."""
    return read_ratings(sorted((store.folder / RATINGS_FOLDER).glob("*.json")), store.spec().digest)


def _read(path: Path) -> RatingFile:
    if not path.is_file():
        raise RunError(f"there is no file {path}; give files that the page of `attnshift rate` has saved")
    with reading(path):
        if path.stat().st_size > _LARGEST:
            raise RunError(f"{path} holds more than {plural(_LARGEST, 'byte')}; it is no file of ratings")
        content = path.read_bytes()
    try:
        return RatingFile.model_validate_json(content)
    except ValidationError as error:
        raise RunError(f"{path}: {_complaint(error)}") from None


def _complaint(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return "it is no JSON; save it from the rating page again"
    if first["loc"] == ("format",):
        return f"its format is not {RATINGS_FORMAT}, which this version reads; is it a file of ratings?"
    return describe(error, RatingFile)
