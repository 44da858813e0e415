"""What stands between an image and a classifier. Adversarial training is one that the lab's ``robust`` carries."""

from attnshift.tables import Table

DEFENCES: Table = {}
