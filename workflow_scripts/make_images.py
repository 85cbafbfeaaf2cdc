from lookalike.job.log import job
from lookalike.sample.make_images import make_images

with job(snakemake.rule, snakemake.log[0]):
    make_images(
        name=snakemake.params.dataset,
        key=snakemake.params.key,
        sources=snakemake.input.get("sources"),
        archives=snakemake.output.archives,
        manifest=snakemake.output.manifest,
    )
