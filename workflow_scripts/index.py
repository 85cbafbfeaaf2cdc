from lookalike.index.build import IndexJob, build
from lookalike.job.log import job

wildcards = snakemake.wildcards
with job(f"index {wildcards.dataset} {wildcards.model} {wildcards.index}", snakemake.log[0]):
    build(
        IndexJob(
            embeddings=snakemake.input.embeddings,
            rejected=snakemake.input.rejected,
            images=snakemake.input.images,
            out=snakemake.output.index,
            ids_out=snakemake.output.ids,
            images_out=snakemake.output.seen,
            key=snakemake.params.key,
            embedding_key=snakemake.params.embedding_key,
            embedding_code=snakemake.params.embedding_code,
            on_bad_image=snakemake.params.on_bad_image,
            threads=snakemake.threads,
            gpu=bool(snakemake.resources.gpu),
        )
    )
