"""What stands between an image and a classifier. Adversarial training is one that the lab's ``robust`` carries."""

from attnshift.registry import Entry, Table

DEFENCES = Table(
    "defence",
    {
        "jpeg": Entry(
            "JPEG compression, to what a file of that quality holds",
            "Dziugaite et al., 2016; Guo et al., ICLR 2018",
            "attnshift.defences.jpeg:Jpeg",
        ),
        "bit_depth": Entry("fewer bits per channel", "Xu et al., NDSS 2018", "attnshift.defences.bit_depth:BitDepth"),
        "median": Entry(
            "the median of every pixel's neighbourhood", "Xu et al., NDSS 2018", "attnshift.defences.median:Median"
        ),
        "gaussian_blur": Entry(
            "a Gaussian mean of every pixel's neighbourhood",
            "Xu et al., NDSS 2018 (local smoothing)",
            "attnshift.defences.gaussian_blur:GaussianBlur",
        ),
        "resize_and_pad": Entry(
            "a random size and a random place on black",
            "Xie et al., ICLR 2018",
            "attnshift.defences.resize_and_pad:ResizeAndPad",
        ),
        "smoothing": Entry(
            "a vote over noisy copies, with a certified radius",
            "Cohen et al., ICML 2019",
            "attnshift.defences.smoothing:Smoothing",
        ),
        "purification": Entry(
            "noise, and the pipeline's own denoising after it",
            "Nie et al., ICML 2022 (DiffPure), in latent space",
            "attnshift.defences.purification:Purification",
        ),
    },
    group="attnshift.defences",
    contract=(
        "attnshift.defences.defended:Defence",
        "attnshift.defences.defended:ClassifierDefence",
        "attnshift.defences.defended:NeedsBackbone",
    ),
)
