from pathlib import Path

from lookalike.job.log import job
from lookalike.report.evidence import ReportJob
from lookalike.report.report import write_report

with job(f"report {snakemake.wildcards.experiment}", snakemake.log[0]):
    write_report(
        ReportJob(
            key=snakemake.params.key,
            metrics=snakemake.input.metrics,
            comparisons=snakemake.input.comparisons,
            duplicates=snakemake.input.duplicates,
            neighbors=snakemake.input.neighbors,
            showcase=snakemake.input.showcase,
            seen=snakemake.input.seen,
            audit=snakemake.input.audit,
            maps=snakemake.input.maps,
            images=snakemake.input.images,
            archives=snakemake.input.archives,
            truth=snakemake.input.truth,
            near_duplicates=next(iter(snakemake.input.near_duplicates), None),
            notes=Path(snakemake.log[0]).with_suffix(".in_work"),
            image_seconds=snakemake.resources.image_seconds,
            out=snakemake.output.page,
        )
    )
