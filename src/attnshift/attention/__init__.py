"""Attention: selection of sites, maps of phrases, and sampled rows."""
