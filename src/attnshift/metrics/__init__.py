"""Metrics of images and of sets of images, statistics of success, and curves."""

from attnshift.registry import Entry, Table

METRICS = Table(
    "metric",
    {
        "ssim": Entry(
            "structural similarity to the clean image, 1 is equal",
            "Wang et al., TIP 2004",
            "attnshift.metrics.metrics:ssim",
        ),
        "ms_ssim": Entry(
            "structural similarity over five scales, 1 is equal",
            "Wang, Simoncelli and Bovik, Asilomar 2003",
            "attnshift.metrics.metrics:ms_ssim",
        ),
        "psnr": Entry(
            "peak signal-to-noise ratio, in dB", "Huynh-Thu and Ghanbari, 2008", "attnshift.metrics.metrics:psnr"
        ),
        "l2": Entry(
            "Euclidean distance of images in [0,1]", "Carlini and Wagner, S&P 2017", "attnshift.metrics.metrics:l2"
        ),
        "linf": Entry(
            "largest change of a value in [0,1]", "Goodfellow et al., ICLR 2015", "attnshift.metrics.metrics:linf"
        ),
        "lpips": Entry(
            "learned perceptual distance on AlexNet, 0 is equal",
            "Zhang et al., CVPR 2018",
            "attnshift.metrics.metrics:lpips",
        ),
        "dists": Entry(
            "distance of structure and texture on VGG-16, 0 is equal",
            "Ding et al., TPAMI 2022",
            "attnshift.metrics.metrics:dists",
        ),
    },
    group="attnshift.metrics",
    contract=("attnshift.metrics.metrics:Metric",),
)

SETS = Table(
    "set metric",
    {
        "fid": Entry(
            "Fréchet distance of the sets' features, 0 is equal",
            "Heusel et al., NeurIPS 2017",
            "attnshift.metrics.sets:Fid",
        ),
        "kid": Entry(
            "squared MMD of the sets' features under a cubic kernel",
            "Bińkowski et al., ICLR 2018",
            "attnshift.metrics.sets:Kid",
        ),
        "cmmd": Entry(
            "1000 x squared MMD of the sets' features under a Gaussian kernel",
            "Jayasumana et al., CVPR 2024",
            "attnshift.metrics.sets:Cmmd",
        ),
    },
    contract=("attnshift.metrics.sets:SetMetric",),
)
"""Distances between the clean images as a set and those of an arm."""

FEATURES = Table(
    "features of sets",
    {
        "inception": Entry(
            "2048 features of the Inception-v3 of 2015",
            "Szegedy et al., CVPR 2016",
            "attnshift.metrics.features:inception_features",
        ),
        "clip": Entry(
            "768 features of CLIP ViT-L/14 at 336 pixels",
            "Radford et al., ICML 2021",
            "attnshift.metrics.features:clip_features",
        ),
    },
)
"""Features for metrics of sets without a named classifier: those of their publications."""

VISIBILITY = Table(
    "measure of visibility",
    {
        "object_ssim": Entry(
            "structural similarity inside the object, 1 is equal",
            "Wang et al., TIP 2004, over the object alone",
            "attnshift.metrics.visibility:object_ssim",
        ),
        "contrast_kept": Entry(
            "share of the object's contrast to its surroundings that is left, 0 is gone",
            "docs/conventions.md",
            "attnshift.metrics.visibility:contrast_kept",
        ),
    },
)
"""Measures of an object's visibility after an edit: (clean, edit, masks) -> [batch]."""
