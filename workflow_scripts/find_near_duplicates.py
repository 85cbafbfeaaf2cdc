from pathlib import Path

from lookalike.job.log import job
from lookalike.sample.near_duplicates.find import NearDuplicatesJob, find_near_duplicates

with job(f"find_near_duplicates {snakemake.wildcards.dataset}", snakemake.log[0]):
    find_near_duplicates(
        NearDuplicatesJob(
            archives=snakemake.input.archives,
            shards=snakemake.input.shards,
            out=snakemake.output[0],
            notes=Path(snakemake.log[0]).with_suffix(".in_work"),
            threads=snakemake.threads,
            image_seconds=snakemake.resources.image_seconds,
        )
    )
