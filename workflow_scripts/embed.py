from lookalike.embed.embed import EmbedJob, embed_shard
from lookalike.io.vector_store import FOLDER
from lookalike.job.log import job

wildcards = snakemake.wildcards
with job(f"embed {wildcards.dataset} {wildcards.model} {wildcards.shard}", snakemake.log.text):
    embed_shard(
        EmbedJob(
            shard=snakemake.input.shard,
            weights=snakemake.input.weights,
            out=snakemake.output.embeddings,
            rejected_out=snakemake.output.rejected,
            timing_out=snakemake.output.get("timing") or snakemake.log.timing,
            model=wildcards.model,
            key=snakemake.params.key,
            code=snakemake.params.code,
            batch_size=snakemake.resources.batch_size,
            threads=snakemake.threads,
            gpu=bool(snakemake.resources.gpu),
            image_seconds=snakemake.resources.image_seconds,
            vector_store=FOLDER if snakemake.resources.vector_store else None,
            archives=snakemake.input.archives,
            export=next(iter(snakemake.input.export), None),
        )
    )
