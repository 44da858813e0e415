"""What the attack lowers: terms on attention and structure, and terms on logits."""

from attnshift.tables import Entry, Table

TERMS: Table = {
    "variance": Entry(
        "variance of the true class's cross-attention over positions and tokens",
        "Chen et al., DiffAttack, TPAMI 2024",
        "attnshift.losses.attention:Variance",
    ),
    "self_attention": Entry(
        "distance between attacked and clean self-attention (mse)",
        "Chen et al., DiffAttack, TPAMI 2024",
        "attnshift.losses.structure:SelfAttention",
    ),
}

CLASSIFICATION: Table = {
    "cross_entropy": Entry(
        "minus the cross-entropy of the true class",
        "Chen et al., DiffAttack, TPAMI 2024",
        "attnshift.losses.classification:CrossEntropy",
    ),
    "margin": Entry(
        "relu(true logit - highest other logit + kappa), also scaled as dlr",
        "Carlini and Wagner, S&P 2017; Croce and Hein, ICML 2020",
        "attnshift.losses.classification:Margin",
    ),
}
