"""The tabletop world: a renderer, and networks trained on it, in the file formats that real ones have."""
