"""Recipes: what an attack is made of, as data."""
