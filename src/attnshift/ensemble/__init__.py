"""Several classifiers as one adversary: rules that make one direction of their gradients."""

from attnshift.registry import Entry, Table

RULES = Table(
    "fusion rule",
    {
        "uniform": Entry(
            "every surrogate that still resists counts the same",
            "Liu et al., ICLR 2017, section 5",
            "attnshift.ensemble.fusion:Uniform",
        ),
        "weighted": Entry(
            "fixed shares, by name of the surrogate",
            "Liu et al., ICLR 2017, section 5",
            "attnshift.ensemble.fusion:Weighted",
        ),
        "consensus": Entry(
            "surrogates that agree with the mean direction count more",
            "this project; against Chen et al., ICCV 2023, see docs/objective.md",
            "attnshift.ensemble.fusion:Consensus",
        ),
        "progress": Entry(
            "surrogates that have lately given way count more",
            "this project; see docs/objective.md",
            "attnshift.ensemble.fusion:Progress",
        ),
        "laggard": Entry(
            "surrogates that resist most count most",
            "this project, a soft form of worst",
            "attnshift.ensemble.fusion:Laggard",
        ),
        "worst": Entry(
            "only the surrogate that resists most, or a smooth maximum",
            "Wang et al., NeurIPS 2021 (min-max over models)",
            "attnshift.ensemble.fusion:Worst",
        ),
        "logits": Entry(
            "one loss on the mean of the logits",
            "Dong et al., CVPR 2018, section 3.4",
            "attnshift.ensemble.blending:Logits",
        ),
        "adaea": Entry(
            "adaptive gradient modulation and disparity-reduced filter, as published",
            "Chen et al., ICCV 2023, section 3",
            "attnshift.ensemble.blending:AdaEA",
        ),
    },
    group="attnshift.rules",
    contract=("attnshift.ensemble.fusion:FusionRule",),
)

TRANSFORMS = Table(
    "transform",
    {
        "rotate": Entry("a turn about the centre", "Athalye et al., ICML 2018", "attnshift.ensemble.transforms:Rotate"),
        "scale_and_shift": Entry(
            "a larger or smaller image, moved",
            "Athalye et al., ICML 2018",
            "attnshift.ensemble.transforms:ScaleAndShift",
        ),
        "resize_and_pad": Entry(
            "a smaller image somewhere on black (input diversity)",
            "Xie et al., CVPR 2019, section 3.3",
            "attnshift.ensemble.transforms:ResizeAndPad",
        ),
        "colour": Entry(
            "brightness, contrast, saturation and hue",
            "Athalye et al., ICML 2018",
            "attnshift.ensemble.transforms:Colour",
        ),
        "block_shuffle": Entry(
            "blocks of the image in other places, each turned a little",
            "Wang et al., CVPR 2024 (BSR)",
            "attnshift.ensemble.transforms:BlockShuffle",
        ),
        "spectrum": Entry(
            "noise, and random factors on the image's frequencies",
            "Long et al., ECCV 2022 (spectrum simulation)",
            "attnshift.ensemble.transforms:Spectrum",
        ),
        "noise": Entry("Gaussian noise", "Athalye et al., ICML 2018", "attnshift.ensemble.transforms:Noise"),
        "jpeg": Entry("differentiable JPEG", "Reich et al., WACV 2024", "attnshift.ensemble.transforms:Jpeg"),
    },
    group="attnshift.transforms",
    contract=("attnshift.ensemble.transforms:Transform",),
)
