from lookalike.job.log import job
from lookalike.sample.sample import make_images

with job(f"make_images {snakemake.wildcards.dataset}", snakemake.log[0]):
    make_images(
        name=snakemake.wildcards.dataset,
        key=snakemake.params.key,
        sources=snakemake.input[0] if snakemake.input else None,
        manifest=snakemake.output.manifest,
    )
