"""Prompts of an image and of its interference phrase, and where the class name stands in them."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import field_validator

from attnshift.recipes.sections import Section

__all__ = ["Caption", "Phrase", "Prompt", "PromptSection"]

_OTHER = "{interference}"


Phrase = tuple[int, str]
"""Where words start in a prompt, and the words."""


@dataclass(frozen=True)
class Prompt:
    """A prompt, the ``phrases`` that name its class, of which the first may be replaced, and, if it
    names both, the character at which the interference phrase starts."""

    text: str
    phrases: tuple[Phrase, ...]
    interference: int | None = None

    @property
    def start(self) -> int:
        """The character at which the first phrase starts."""
        return self.phrases[0][0]


@dataclass(frozen=True)
class Caption:
    """A prompt of an image's own, and the ``phrases`` that name its class there."""

    text: str
    phrases: tuple[Phrase, ...]

    def replaced(self, words: str) -> Prompt:
        """The caption with ``words`` in the place of each phrase."""
        text, start, end = "", 0, 0
        for at, old in sorted(self.phrases):
            text += self.text[end:at]
            start = len(text) if (at, old) == self.phrases[0] else start
            text, end = text + words, at + len(old)
        return Prompt(text + self.text[end:], ((start, words),))


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

    def prompt(self, class_name: str, interference: str = "", caption: Caption | None = None) -> Prompt:
        """An image's own prompt: its ``caption``, if it has one."""
        if caption is not None:
            return Prompt(caption.text, caption.phrases)
        before, _, after = self.template.partition("{}")
        before, after = (part.replace(_OTHER, interference) for part in (before, after))
        text, start = before + class_name + after, len(before)
        if not self.names_both:
            return Prompt(text, ((start, class_name),))
        first = self.template.index(_OTHER)
        leads = first < self.template.index("{}")
        other = first if leads else first - len("{}") + len(class_name)
        return Prompt(text, ((start, class_name),), other)

    def interference_prompt(self, phrase: str, caption: Caption | None = None) -> Prompt:
        """The prompt of ``phrase``: the ``caption`` with it in place of the class, if there is one
        and ``interference_template`` says nothing else."""
        if caption is not None and self.interference_template is None:
            return caption.replaced(phrase)
        own = "a photo of a {}" if self.names_both else self.template
        template = own if self.interference_template is None else self.interference_template
        return Prompt(template.replace("{}", phrase), ((template.index("{}"), phrase),))
