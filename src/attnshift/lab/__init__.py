"""Tabletop world: a renderer, and networks trained on its images, stored in common file formats."""
