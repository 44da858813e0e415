"""How an attack is judged: quality, success against control arms, and how sure the figures are."""

from attnshift.tables import Entry, Table

METRICS: Table = {
    "ssim": Entry(
        "structural similarity to the clean image, 1 is equal",
        "Wang et al., TIP 2004",
        "attnshift.evaluation.metrics:ssim",
    ),
    "ms_ssim": Entry(
        "structural similarity over five scales, 1 is equal",
        "Wang, Simoncelli and Bovik, Asilomar 2003",
        "attnshift.evaluation.metrics:ms_ssim",
    ),
    "psnr": Entry(
        "peak signal-to-noise ratio, in dB", "Huynh-Thu and Ghanbari, 2008", "attnshift.evaluation.metrics:psnr"
    ),
    "l2": Entry(
        "Euclidean distance of images in [0,1]", "Carlini and Wagner, S&P 2017", "attnshift.evaluation.metrics:l2"
    ),
    "linf": Entry(
        "largest change of a value in [0,1]", "Goodfellow et al., ICLR 2015", "attnshift.evaluation.metrics:linf"
    ),
    "lpips": Entry(
        "learned perceptual distance on AlexNet, 0 is equal",
        "Zhang et al., CVPR 2018",
        "attnshift.evaluation.metrics:lpips",
    ),
    "dists": Entry(
        "distance of structure and texture on VGG-16, 0 is equal",
        "Ding et al., TPAMI 2022",
        "attnshift.evaluation.metrics:dists",
    ),
}

SETS: Table = {
    "fid": Entry(
        "Fréchet distance of the sets' features, 0 is equal",
        "Heusel et al., NeurIPS 2017",
        "attnshift.evaluation.sets:Fid",
    ),
    "kid": Entry(
        "squared MMD of the sets' features under a cubic kernel",
        "Bińkowski et al., ICLR 2018",
        "attnshift.evaluation.sets:Kid",
    ),
    "cmmd": Entry(
        "1000 x squared MMD of the sets' features under a Gaussian kernel",
        "Jayasumana et al., CVPR 2024",
        "attnshift.evaluation.sets:Cmmd",
    ),
}
"""Distances between the clean images as a set and those of an arm."""

FEATURES: Table = {
    "inception": Entry(
        "2048 features of the Inception-v3 of 2015",
        "Szegedy et al., CVPR 2016",
        "attnshift.evaluation.features:inception_features",
    ),
    "clip": Entry(
        "768 features of CLIP ViT-L/14 at 336 pixels",
        "Radford et al., ICML 2021",
        "attnshift.evaluation.features:clip_features",
    ),
}
"""What sets are compared by where no classifier is named: what their metrics were published with."""

VISIBILITY: Table = {
    "object_ssim": Entry(
        "structural similarity inside the object, 1 is equal",
        "Wang et al., TIP 2004, over the object alone",
        "attnshift.evaluation.visibility:object_ssim",
    ),
    "contrast_kept": Entry(
        "share of the object's contrast to its surroundings that is left, 0 is gone",
        "docs/conventions.md",
        "attnshift.evaluation.visibility:contrast_kept",
    ),
}
"""How visible an object still is, where masks say where it was: (clean, edit, masks) -> [batch]."""

ARMS: dict[str, str] = {
    "clean": "the image as it was read",
    "round_trip": "through the autoencoder and back",
    "reconstruction": "inverted and denoised, not attacked",
    "noise": "moved at random, as far as the attack moved it",
    "attack": "the adversarial image",
}
"""What every classifier is shown of every image; success that a control arm has too is not the attack's.

An attack on pixels has neither autoencoder nor inversion, and so no arm for them.
"""
