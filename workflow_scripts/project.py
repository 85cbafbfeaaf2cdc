from lookalike.job.log import job
from lookalike.search.projection import ProjectJob, project

wildcards = snakemake.wildcards
with job(f"project {wildcards.dataset} {wildcards.model} {wildcards.index}", snakemake.log[0]):
    project(
        ProjectJob(
            embeddings=snakemake.input.embeddings,
            neighbors=snakemake.input.neighbors,
            showcase=snakemake.input.showcase,
            images=snakemake.input.images,
            truth=snakemake.input.truth,
            out=snakemake.output[0],
        )
    )
