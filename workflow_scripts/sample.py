from lookalike.job.log import job
from lookalike.sample.sample import SampleJob, sample

with job(f"sample {snakemake.wildcards.dataset}", snakemake.log[0]):
    sample(
        SampleJob(
            dataset=snakemake.wildcards.dataset,
            key=snakemake.params.key,
            manifest=snakemake.input.get("manifest"),
            images_out=snakemake.output.images,
            truth_out=snakemake.output.truth,
        )
    )
