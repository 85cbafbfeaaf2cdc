from lookalike.datasets import sample
from lookalike.job import job

with job(f"sample {snakemake.wildcards.dataset}", snakemake.log[0]):
    sample(
        name=snakemake.wildcards.dataset,
        key=snakemake.params.key,
        manifest=snakemake.input.get("manifest"),
        images_out=snakemake.output.images,
        truth_out=snakemake.output.truth,
        expect=snakemake.resources.expect,
    )
