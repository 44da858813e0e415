"""Losses that the attack lowers: terms on attention, structure and images, and terms on logits."""

from attnshift.registry import Entry, Table

TERMS = Table(
    "term",
    {
        "variance": Entry(
            "variance of the true class's cross-attention over positions and tokens",
            "Chen et al., DiffAttack, TPAMI 2024",
            "attnshift.losses.attention:Variance",
        ),
        "entropy": Entry(
            "1 - relative entropy of the true class's token maps, with head dropout and smoothing",
            "after Chen et al., TPAMI 2024; Hertz et al., ICLR 2023",
            "attnshift.losses.attention:Entropy",
        ),
        "contrast": Entry(
            "by how much the true class's attention exceeds the interference phrase's",
            "after Hertz et al., Prompt-to-Prompt, ICLR 2023",
            "attnshift.losses.attention:Contrast",
        ),
        "replace": Entry(
            "distance of the true class's attention to what the interference phrase looks at",
            "Hertz et al., Prompt-to-Prompt, ICLR 2023, as a loss",
            "attnshift.losses.attention:Replace",
        ),
        "self_attention": Entry(
            "distance between attacked and clean self-attention (mse, kl, symmetric, js), layer by layer",
            "Chen et al., DiffAttack, TPAMI 2024; Lin, IEEE Trans. Inf. Theory 1991 (js)",
            "attnshift.losses.structure:SelfAttention",
        ),
        "frequency": Entry(
            "change of Laplacian or wavelet detail, on the object first",
            "Marr and Hildreth, 1980; Mallat, TPAMI 1989",
            "attnshift.losses.images:Frequency",
        ),
        "perceptual": Entry(
            "1 - HaarPSI to the clean image; needs no weights",
            "Reisenhofer et al., Signal Processing: Image Communication 2018",
            "attnshift.losses.images:Perceptual",
        ),
        "lpips": Entry(
            "learned perceptual distance to the clean image; needs downloaded weights",
            "Zhang et al., CVPR 2018",
            "attnshift.losses.images:Lpips",
        ),
        "l2": Entry(
            "root mean square change of the image", "Carlini and Wagner, S&P 2017", "attnshift.losses.images:L2"
        ),
    },
    group="attnshift.terms",
    contract=("attnshift.losses.objective:LossTerm", "attnshift.losses.objective:StatefulTerm"),
)

CLASSIFICATION = Table(
    "classification loss",
    {
        "cross_entropy": Entry(
            "minus the cross-entropy of the true class, or the cross-entropy of the target",
            "Chen et al., DiffAttack, TPAMI 2024",
            "attnshift.losses.classification:CrossEntropy",
        ),
        "margin": Entry(
            "relu(margin + kappa), in logits or scaled as dlr",
            "Carlini and Wagner, S&P 2017; Croce and Hein, ICML 2020",
            "attnshift.losses.classification:Margin",
        ),
        "distribution": Entry(
            "distance (js, ce) of the prediction to a uniform distribution, or to one peaked on another class",
            "Lin, IEEE Trans. Inf. Theory 1991 (js)",
            "attnshift.losses.classification:Distribution",
        ),
    },
    contract=("attnshift.ensemble.surrogates:Criterion",),
)
