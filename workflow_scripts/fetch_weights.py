from lookalike.embed.fetch_weights import fetch_weights
from lookalike.job.log import job

with job(f"fetch_weights {snakemake.wildcards.weights}", snakemake.log[0]):
    fetch_weights(key=snakemake.params.key, out=snakemake.output[0], chunk_seconds=snakemake.resources.download_seconds)
