from pathlib import Path

from lookalike.job.log import job
from lookalike.sample.make_images import MakeImagesJob, make_images

with job(snakemake.rule, snakemake.log[0]):
    make_images(
        MakeImagesJob(
            dataset=snakemake.params.dataset,
            key=snakemake.params.key,
            archives=snakemake.input.get("archives", ()),
            sources=snakemake.input.get("sources"),
            archives_out=snakemake.output.archives,
            manifest_out=snakemake.output.manifest,
            notes=Path(snakemake.log[0]).with_suffix(".in_work"),
            image_seconds=snakemake.resources.image_seconds,
        )
    )
