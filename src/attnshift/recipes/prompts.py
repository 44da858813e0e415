"""Prompts of an image and of its interference phrase, and where the class name stands in them."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import field_validator

from attnshift.recipes.sections import Section

__all__ = ["Prompt", "PromptSection"]

_OTHER = "{interference}"


@dataclass(frozen=True)
class Prompt:
    """A prompt, and at which characters the class name and, if it names both,
    the interference phrase start."""

    text: str
    start: int
    interference: int | None = None


class PromptSection(Section):
    template: str = "a photo of a {}"
    """Prompt of an image; ``{}`` stands for the class name, once,
    and ``{interference}`` may stand for the other."""
    interference_template: str | None = None
    """Prompt of the interference phrase; like ``template`` where
    that does not name both, else "a photo of a {}"."""

    stream: str = "all"
    """The text stream in which phrases are looked up where a pipeline has several (SD3: clip and
    t5); all: their masses are added."""

    @field_validator("template", "interference_template")
    @classmethod
    def _holds_the_name_once(cls, template: str | None) -> str | None:
        if template is not None and template.count("{}") != 1:
            raise ValueError("must hold {} once, for the class name")
        if template is not None and template.count(_OTHER) > 1:
            raise ValueError("may hold {interference} once")
        return template

    @field_validator("interference_template")
    @classmethod
    def _names_one(cls, template: str | None) -> str | None:
        if template is not None and _OTHER in template:
            raise ValueError("names the interference phrase by {} and cannot hold {interference}")
        return template

    @property
    def names_both(self) -> bool:
        return _OTHER in self.template

    def prompt(self, class_name: str, interference: str = "") -> Prompt:
        """An image's own prompt."""
        before, _, after = self.template.partition("{}")
        before, after = (part.replace(_OTHER, interference) for part in (before, after))
        text, start = before + class_name + after, len(before)
        if not self.names_both:
            return Prompt(text, start)
        first = self.template.index(_OTHER)
        return Prompt(text, start, first if first < self.template.index("{}") else first - len("{}") + len(class_name))

    def interference_prompt(self, phrase: str) -> Prompt:
        own = "a photo of a {}" if self.names_both else self.template
        template = own if self.interference_template is None else self.interference_template
        return Prompt(template.replace("{}", phrase), template.index("{}"))
