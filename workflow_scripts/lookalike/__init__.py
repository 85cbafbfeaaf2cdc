"""Which image embedding finds your images? The library behind the workflow; it knows nothing of Snakemake."""

__version__ = "0.1.0"
