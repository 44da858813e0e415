"""From the tables of a run to figures and one HTML page. Reads result files only, and never imports torch."""
