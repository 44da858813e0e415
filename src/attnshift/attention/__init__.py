"""Attention: which sites are read, what their maps say of a phrase, and which of their rows are drawn."""
