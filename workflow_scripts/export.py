from lookalike.embed.export import ExportJob, export
from lookalike.job.log import job

with job(f"export {snakemake.wildcards.weights}", snakemake.log[0]):
    export(
        ExportJob(
            weights=snakemake.input.weights,
            out=snakemake.output[0],
            key=snakemake.params.key,
            code=snakemake.params.code,
            batch_size=snakemake.resources.batch_size,
            threads=snakemake.threads,
        )
    )
