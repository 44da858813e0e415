"""Attacks on pixels that other libraries carry out."""
