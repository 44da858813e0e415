"""Words that the pages use, each with one sentence or two, and the page docs/glossary.md, made of
them: `python -m attnshift.report.glossary > FILE` prints it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

__all__ = ["GLOSSARY", "glossary_page"]

GLOSSARY: Mapping[str, str] = {
    "arm": (
        "A version of an image that the classifiers are shown: clean, attacked, or a control. A control arm went part "
        "of the way without being attacked: through the autoencoder alone (round trip), inverted and denoised "
        "(reconstruction), or moved at random as far as the attack moved it (noise)."
    ),
    "attributable": (
        "Success of the attack, less what inversion and reconstruction alone already break. An image that the pipeline "
        "spoils by itself counts for nothing."
    ),
    "budget": "The least naturalness that every attacked image keeps, such as SSIM 0.95. The attack spends it.",
    "defended": "Of a judge: it stands behind a defence, which changes the image before the judge sees it.",
    "interval": (
        "Where the true value lies, with 95 % confidence, written in square brackets. Few images make it wide."
    ),
    "iterate": (
        "The image as it stands in one iteration of the attack. Of all iterates one is kept, and that is the image "
        "which is saved."
    ),
    "iteration": "One update of the attack. A step, in contrast, is one step of the diffusion model's denoising.",
    "judge": (
        "A classifier that the attack never sees. Its answers say how far a change carries over to classifiers that "
        "an attacker does not know."
    ),
    "margin": (
        "How many logits a classifier still has in favour of the right answer. Below 0 the attack has succeeded on it."
    ),
    "mass": "Of attention to a phrase: the mean attention that a position pays to its words, from 0 to 1.",
    "offset": (
        "A way to make the unattacked diffusion model end at the image again: what each step of denoising misses is "
        "noted once and added back. It is a method of reconstruction in a recipe."
    ),
    "pull": (
        "How much of an update comes from a term: the norm of its part in the gradient, divided by that of the "
        "classification's part."
    ),
    "reference": (
        "A classifier that is neither attacked nor a judge. It says if an attacked image still shows its class."
    ),
    "SSIM": (
        "Structural similarity of an image to the clean one, 1 where nothing has changed. It is a formula: only people "
        "can say what people see."
    ),
    "surrogate": (
        "A classifier that the attack sees: its gradients lead the change. It stands in for the classifiers that an "
        "attacker cannot look into."
    ),
    "term": "A part of what the attack lowers, such as the classification or the entropy of attention.",
    "total variation": (
        "How far a map of attention has moved, from 0 (it looks at the same places) to 1 (at none of them)."
    ),
    "tuning": "Of a classifier: settings of the attack were chosen by it, so that it is no judge.",
}
"""Word -> its meaning, in the order of the alphabet."""

_START = """# Glossary

Words of the pages that `attnshift report` and `attnshift compare` write, and of these pages. It is
made from `src/attnshift/report/glossary.py`; after a change of that file, renew it:

```
python -m attnshift.report.glossary > docs/glossary.md
```

[Conventions](conventions.md) holds the exact definitions.
"""


def glossary_page() -> str:
    """The whole page as Markdown, a heading a word, so that other pages can link to each."""
    parts = (f"\n## {word}\n\n{textwrap.fill(text, 100)}\n" for word, text in GLOSSARY.items())
    return _START + "".join(parts)


if __name__ == "__main__":
    print(glossary_page(), end="")
