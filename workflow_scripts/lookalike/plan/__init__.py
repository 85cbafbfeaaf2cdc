"""Targets, paths, keys and code hashes: what Snakemake asks, answered without torch."""
