from lookalike.compare.duplicates import DuplicatesJob, find_duplicates
from lookalike.job.log import job

with job(f"find_duplicates {snakemake.wildcards.experiment}", snakemake.log[0]):
    find_duplicates(
        DuplicatesJob(
            seen=snakemake.input.seen,
            images=snakemake.input.images,
            truth=snakemake.input.truth,
            out=snakemake.output.counts,
            list_out=snakemake.output.list,
        )
    )
