from lookalike.job import job
from lookalike.models import fetch_weights

with job(f"fetch_weights {snakemake.wildcards.model}", snakemake.log[0]):
    fetch_weights(key=snakemake.params.key, out=snakemake.output[0])
