"""How an attack is judged: quality, success against control arms, and how sure the figures are."""

from attnshift.tables import Entry, Table

METRICS: Table = {
    "ssim": Entry(
        "structural similarity to the clean image, 1 is equal",
        "Wang et al., TIP 2004",
        "attnshift.evaluation.metrics:ssim",
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
}

ARMS: dict[str, str] = {
    "clean": "the image as it was read",
    "round_trip": "through the autoencoder and back",
    "reconstruction": "inverted and denoised, not attacked",
    "attack": "the adversarial image",
}
"""What every classifier is shown of every image; success that a control arm has too is not the attack's."""
