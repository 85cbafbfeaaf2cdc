from pathlib import Path

from lookalike.job.log import job
from lookalike.measure.audit.audit import AuditJob, audit

wildcards = snakemake.wildcards
with job(f"audit {wildcards.dataset} {wildcards.model} {wildcards.index}", snakemake.log[0]):
    audit(
        AuditJob(
            neighbors=snakemake.input.neighbors,
            candidates=snakemake.input.candidates,
            images=snakemake.input.images,
            archives=snakemake.input.archives,
            truth=snakemake.input.truth,
            out=snakemake.output[0],
            notes=Path(snakemake.log[0]).with_suffix(".in_work"),
            image_seconds=snakemake.resources.image_seconds,
            k=snakemake.params.k,
            threads=snakemake.threads,
        )
    )
