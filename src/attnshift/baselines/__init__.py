"""Baselines: published attacks on pixels and through a diffusion model, for comparison on the same
images and judges."""

from collections.abc import Mapping

from attnshift.registry import Entry, Table, build

BASELINES = Table(
    "baseline",
    {
        "pgd": Entry(
            "projected gradient descent from a random start", "Madry et al., ICLR 2018", "attnshift.baselines.pixel:PGD"
        ),
        "mifgsm": Entry(
            "momentum iterative fast gradient sign method, on the surrogates' mean logits",
            "Dong et al., CVPR 2018",
            "attnshift.baselines.pixel:MIFGSM",
        ),
        "adaea": Entry(
            "MI-FGSM along AdaEA's direction over the surrogates",
            "Chen et al., ICCV 2023",
            "attnshift.baselines.pixel:AdaptiveEnsembleAttack",
        ),
        "mef": Entry(
            "MI-FGSM along the gradients of random neighbours",
            "Qiu et al. (MEF), T-IFS 2026",
            "attnshift.baselines.mef:MEF",
        ),
        "advad": Entry(
            "clipped gradients along a diffusion path that needs no diffusion model",
            "Li et al. (AdvAD), NeurIPS 2024",
            "attnshift.baselines.advad:AdvAD",
        ),
        "advad_x": Entry(
            "AdvAD that stops where the surrogates are fooled, under their Grad-CAM; hardly visible",
            "Li et al. (AdvAD-X), NeurIPS 2024",
            "attnshift.baselines.advad:AdvADX",
        ),
        "alma_budget": Entry(
            "the smallest margin within a budget, by an augmented Lagrangian",
            "after Rony et al. (ALMA), ICCV 2021",
            "attnshift.baselines.alma:AlmaBudget",
        ),
        "ppgd": Entry(
            "PGD within a ball of network features; needs weights",
            "Laidlaw, Singla and Feizi, ICLR 2021",
            "attnshift.baselines.perceptual:PPGD",
        ),
        "diffpgd": Entry(
            "PGD whose classifier sees the image purified by the pipeline; purified images are the result",
            "Xue et al., NeurIPS 2023",
            "attnshift.baselines.diffpgd:DiffPGD",
        ),
        "diffpgd_official": Entry(
            "diffpgd as released: fresh noise in each iteration and for the result, no residual",
            "Xue et al., NeurIPS 2023",
            "attnshift.baselines.diffpgd:OfficialDiffPGD",
        ),
        "aca": Entry(
            "momentum steps on the noise that the pipeline maps an image to; the way back loses nothing",
            "Chen et al., NeurIPS 2023",
            "attnshift.baselines.aca:ACA",
        ),
        "aca_official": Entry(
            "aca as released: null-text reconstruction, no residual, unrounded images tested",
            "Chen et al., NeurIPS 2023",
            "attnshift.baselines.aca:OfficialACA",
        ),
        "advdiff": Entry(
            "sampling from the inverted image, moved towards a wrong class after each step, in rounds",
            "Dai et al. (AdvDiff), ECCV 2024",
            "attnshift.baselines.advdiff:AdvDiff",
        ),
        "natadiff": Entry(
            "sampling from the inverted image, steered to the boundary of a wrong class and the true one",
            "Collins et al. (NatADiff), ICLR 2026",
            "attnshift.baselines.natadiff:NatADiff",
        ),
        "advdiff_noise": Entry(
            "advdiff as published, from noise: makes images of its own, beside their twins without the attack",
            "Dai et al. (AdvDiff), ECCV 2024",
            "attnshift.baselines.advdiff:AdvDiffFromNoise",
        ),
        "natadiff_noise": Entry(
            "natadiff as published, from noise: makes images of its own, beside their twins without the attack",
            "Collins et al. (NatADiff), ICLR 2026",
            "attnshift.baselines.natadiff:NatADiffFromNoise",
        ),
        "apa": Entry(
            "aca along a denoiser that has learned the image by heart (a LoRA), whose last steps are pushed too",
            "Jiang et al. (APA), arXiv 2506.01511",
            "attnshift.baselines.apa:APA",
        ),
        "apa_official": Entry(
            "apa as released: the way back loses something, and the image seen last is the result",
            "Jiang et al. (APA), arXiv 2506.01511",
            "attnshift.baselines.apa:OfficialAPA",
        ),
        "advfm": Entry(
            "pgd on the end that a rectified flow predicts, step by step, with a look ahead; needs SD3 or FLUX.1",
            "AdvFM, CVPR 2026, after notes on it",
            "attnshift.baselines.advfm:AdvFM",
        ),
        "difgsm": Entry(
            "MI-FGSM with randomly resized and padded images (extra baselines)",
            "Xie et al., CVPR 2019",
            "attnshift.baselines.external.torchattack_baselines:DI",
        ),
        "tifgsm": Entry(
            "MI-FGSM with a gradient smoothed over shifts (extra baselines)",
            "Dong et al., CVPR 2019",
            "attnshift.baselines.external.torchattack_baselines:TI",
        ),
        "ssa": Entry(
            "MI-FGSM over copies with a changed spectrum (extra baselines)",
            "Long et al., ECCV 2022",
            "attnshift.baselines.external.torchattack_baselines:SSA",
        ),
        "bsr": Entry(
            "MI-FGSM over copies with shuffled and rotated blocks (extra baselines)",
            "Wang et al., CVPR 2024",
            "attnshift.baselines.external.torchattack_baselines:BSR",
        ),
        "l2t": Entry(
            "MI-FGSM over copies by operations whose probabilities are learned (extra baselines)",
            "Zhu et al. (L2T), CVPR 2024",
            "attnshift.baselines.external.torchattack_baselines:L2T",
        ),
        "autoattack": Entry(
            "four attacks in turn; tests the surrogates themselves, not transfer (extra baselines)",
            "Croce and Hein, ICML 2020",
            "attnshift.baselines.external.art_baselines:AutoAttack",
        ),
    },
    group="attnshift.baselines",
    contract=("attnshift.baselines.kinds:Baseline", "attnshift.baselines.diffusion:DiffusionBaseline"),
)


def needs_diffusion(name: str) -> bool:
    """True if the baseline called ``name`` edits through a diffusion model; False for an unknown
    one."""
    from attnshift.baselines.diffusion import DiffusionBaseline

    made = BASELINES[name].load() if name in BASELINES else None
    return isinstance(made, type) and issubclass(made, DiffusionBaseline)


def generates(name: str, options: Mapping[str, object]) -> bool:
    """True if the baseline called ``name`` makes images of its own with ``options``; False for an
    unknown one."""
    from attnshift.baselines.diffusion import DiffusionBaseline

    made = build(BASELINES, name, options) if needs_diffusion(name) else None
    return isinstance(made, DiffusionBaseline) and made.generates
