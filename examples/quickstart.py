"""Attack two images of the built-in lab, and ask a classifier that was never attacked."""

import torch

from attnshift import LatentAttack, load_classifier
from attnshift.lab.render import render_scenes
from attnshift.lab.scenes import CLASSES, scene

images = render_scenes([scene(0, "test", index) for index in (3, 7)]).images
labels = torch.tensor([3, 7])

attack = LatentAttack("lab", ["lab:resnet", "lab:mobilevit"], "quick")
result = attack(images, labels)

judge = load_classifier("lab:coatnet")
for label, guess, fooled in zip(labels, judge(result.images).argmax(1), result.fooled, strict=True):
    print(f"a {CLASSES[label]}: fools both surrogates: {bool(fooled)}; the judge sees a {CLASSES[guess]}")
