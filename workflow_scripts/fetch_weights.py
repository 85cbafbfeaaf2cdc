from lookalike.embed.encoders import fetch_weights
from lookalike.job.log import job

with job(f"fetch_weights {snakemake.wildcards.model}", snakemake.log[0]):
    fetch_weights(key=snakemake.params.key, out=snakemake.output[0])
