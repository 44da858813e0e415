"""A loss term, a fusion rule, a defence and a metric for attnshift."""
