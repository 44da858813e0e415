"""The pipeline of the tests."""

from attnshift.lab.random_pipeline import random_pipeline as tiny_pipeline

__all__ = ["tiny_pipeline"]
