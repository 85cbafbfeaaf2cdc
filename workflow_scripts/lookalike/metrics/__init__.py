"""Metrics and statistics as functions of neighbors and truth; *measure* and *compare* share them."""
