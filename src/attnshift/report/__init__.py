"""Figures, tables and HTML pages from the tables of a run. Reads result files only, and never
imports torch."""
