"""Metrics of images and of sets of images, statistics of success, and curves."""

from dataclasses import dataclass

from attnshift.errors import RecipeError
from attnshift.registry import Entry, Table, check_known


@dataclass(frozen=True, kw_only=True)
class MetricEntry(Entry):
    """Metric of an image and its reference, and what an attack that keeps a limit must know of it.

    ``higher_is_better``: it is largest for equal images, else smallest. ``differentiable``: its
    gradient is finite for any two images, equal ones too, and reaches every pixel that counts.
    """

    higher_is_better: bool
    differentiable: bool


METRICS = Table(
    "metric",
    {
        "ssim": MetricEntry(
            summary="structural similarity to the clean image, 1 is equal",
            reference="Wang et al., TIP 2004",
            target="attnshift.metrics.metrics:ssim",
            higher_is_better=True,
            differentiable=True,
        ),
        "ms_ssim": MetricEntry(
            summary="structural similarity over five scales, 1 is equal",
            reference="Wang, Simoncelli and Bovik, Asilomar 2003",
            target="attnshift.metrics.metrics:ms_ssim",
            higher_is_better=True,
            differentiable=True,
        ),
        "haarpsi": MetricEntry(
            summary="similarity of Haar detail and local colour, 1 is equal",
            reference="Reisenhofer et al., Signal Processing: Image Communication 2018",
            target="attnshift.metrics.metrics:haarpsi",
            higher_is_better=True,
            differentiable=True,
        ),
        "psnr": MetricEntry(
            summary="peak signal-to-noise ratio, in dB",
            reference="Huynh-Thu and Ghanbari, 2008",
            target="attnshift.metrics.metrics:psnr",
            higher_is_better=True,
            differentiable=False,
        ),
        "l2": MetricEntry(
            summary="Euclidean distance of images in [0,1]",
            reference="Carlini and Wagner, S&P 2017",
            target="attnshift.metrics.metrics:l2",
            higher_is_better=False,
            differentiable=True,
        ),
        "linf": MetricEntry(
            summary="largest change of a value in [0,1]",
            reference="Goodfellow et al., ICLR 2015",
            target="attnshift.metrics.metrics:linf",
            higher_is_better=False,
            differentiable=False,
        ),
        "flat_noise": MetricEntry(
            summary="noise that the flattest tenth of the image has gained, in levels of 255, 0 is none",
            reference="after Olsen, CVGIP 1993; Legge and Foley, JOSA 1980",
            target="attnshift.metrics.metrics:flat_noise",
            higher_is_better=False,
            differentiable=False,
        ),
        "lpips-squeeze": MetricEntry(
            summary="learned perceptual distance on SqueezeNet, 0 is equal; needs weights",
            reference="Zhang et al., CVPR 2018",
            target="attnshift.metrics.metrics:lpips_squeeze",
            higher_is_better=False,
            differentiable=True,
        ),
        "lpips-alex": MetricEntry(
            summary="learned perceptual distance on AlexNet, 0 is equal; needs weights",
            reference="Zhang et al., CVPR 2018",
            target="attnshift.metrics.metrics:lpips_alex",
            higher_is_better=False,
            differentiable=True,
        ),
        "lpips-vgg": MetricEntry(
            summary="learned perceptual distance on VGG-16, 0 is equal; needs weights",
            reference="Zhang et al., CVPR 2018",
            target="attnshift.metrics.metrics:lpips_vgg",
            higher_is_better=False,
            differentiable=True,
        ),
        "dists": MetricEntry(
            summary="distance of structure and texture on VGG-16, 0 is equal; needs weights",
            reference="Ding et al., TPAMI 2022",
            target="attnshift.metrics.metrics:dists",
            higher_is_better=False,
            differentiable=True,
        ),
    },
    group="attnshift.metrics",
    contract=("attnshift.metrics.metrics:Metric",),
    reserved=dict.fromkeys(("id", "arm"), "which is another column of quality.parquet"),
)


def budget_metric(name: str) -> MetricEntry:
    """Entry of the metric ``name``, for a limit on it.

    Our own are not imported. A plug-in states ``higher_is_better`` and ``differentiable`` as
    attributes of its function. ``RecipeError`` is raised if there is no such metric, or if a
    plug-in does not state them.
    """
    check_known(METRICS, name)
    entry = METRICS[name]
    if isinstance(entry, MetricEntry):
        return entry
    metric = entry.load()
    stated = {fact: getattr(metric, fact, None) for fact in ("higher_is_better", "differentiable")}
    for fact, value in stated.items():
        if not isinstance(value, bool):
            raise RecipeError(
                f"metric '{name}' of package {entry.package} cannot be limited: it does not state {fact} "
                "(docs/extending.md); limit another metric"
            )
    return MetricEntry(
        entry.summary,
        entry.reference,
        entry.target,
        entry.package,
        higher_is_better=bool(stated["higher_is_better"]),
        differentiable=bool(stated["differentiable"]),
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
