"""Several classifiers as one adversary: how their gradients become one direction."""

from attnshift.tables import Entry, Table

RULES: Table = {
    "uniform": Entry(
        "every surrogate counts the same, by unit gradient or by plain mean",
        "Liu et al., ICLR 2017, section 5",
        "attnshift.ensemble.fusion:Uniform",
    ),
}
