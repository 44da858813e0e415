"""Baselines that other libraries implement."""
