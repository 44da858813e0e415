"""The attack: a recipe, the problem that it poses for a batch of images, and the loop that solves
it."""
