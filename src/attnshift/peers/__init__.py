"""Attacks of the field, on pixels, as baselines on the same images and judges."""

from attnshift.tables import Entry, Table

PEERS: Table = {
    "pgd": Entry(
        "projected gradient descent from a random start", "Madry et al., ICLR 2018", "attnshift.peers.pixel:PGD"
    ),
    "mifgsm": Entry(
        "momentum iterative fast gradient sign method, on the surrogates' mean logits",
        "Dong et al., CVPR 2018",
        "attnshift.peers.pixel:MIFGSM",
    ),
    "adaea": Entry(
        "MI-FGSM along AdaEA's direction over the surrogates", "Chen et al., ICCV 2023", "attnshift.peers.pixel:AdaEA"
    ),
    "difgsm": Entry(
        "MI-FGSM through randomly resized and padded images (extra peers)",
        "Xie et al., CVPR 2019",
        "attnshift.peers.foreign.torchattack_peers:DI",
    ),
    "tifgsm": Entry(
        "MI-FGSM with a gradient that is smoothed over shifts (extra peers)",
        "Dong et al., CVPR 2019",
        "attnshift.peers.foreign.torchattack_peers:TI",
    ),
    "ssa": Entry(
        "MI-FGSM through copies with a changed spectrum (extra peers)",
        "Long et al., ECCV 2022",
        "attnshift.peers.foreign.torchattack_peers:SSA",
    ),
    "bsr": Entry(
        "MI-FGSM through copies whose blocks are shuffled and turned (extra peers)",
        "Wang et al., CVPR 2024",
        "attnshift.peers.foreign.torchattack_peers:BSR",
    ),
    "autoattack": Entry(
        "four attacks in turn; measures the surrogates, does not transfer (extra peers)",
        "Croce and Hein, ICML 2020",
        "attnshift.peers.foreign.art_peers:AutoAttack",
    ),
}
