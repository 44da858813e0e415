"""Defences: changes of an image, or of a classifier, that shall make attacks fail.

Adversarial training is not among them; the lab's classifier ``robust`` was trained with it.
"""

from attnshift.registry import Entry, Table

DEFENCES = Table(
    "defence",
    {
        "jpeg": Entry(
            "JPEG compression of the image at a given quality",
            "Dziugaite et al., 2016; Guo et al., ICLR 2018",
            "attnshift.defences.jpeg:JpegCompression",
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
            "the image at a random size and a random place on black",
            "Xie et al., ICLR 2018",
            "attnshift.defences.resize_and_pad:RandomResizeAndPad",
        ),
        "smoothing": Entry(
            "a vote over noisy copies, with a certified radius",
            "Cohen et al., ICML 2019",
            "attnshift.defences.smoothing:Smoothing",
        ),
        "purification": Entry(
            "noise, then denoising by the run's pipeline",
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
