from lookalike.job.log import job
from lookalike.near_duplicates.find import NearDuplicatesJob, find_near_duplicates

with job(f"find_near_duplicates {snakemake.wildcards.dataset}", snakemake.log[0]):
    find_near_duplicates(
        NearDuplicatesJob(
            shards=snakemake.input.shards,
            out=snakemake.output[0],
            threads=snakemake.threads,
        )
    )
