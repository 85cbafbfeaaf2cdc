from lookalike.index import search
from lookalike.job import job

wildcards = snakemake.wildcards
with job(f"search {wildcards.dataset} {wildcards.model} {wildcards.index}", snakemake.log.text):
    search(
        index=snakemake.input.index,
        ids=snakemake.input.ids,
        embeddings=snakemake.input.embeddings,
        images=snakemake.input.images,
        out=snakemake.output.neighbors,
        pool_out=snakemake.output.pool,
        gallery_out=snakemake.output.gallery,
        training_out=snakemake.output.get("training"),
        pool_sn_out=snakemake.output.get("pool_sn"),
        timing_out=snakemake.log.timing,
        key=snakemake.params.key,
        build_key=snakemake.params.build_key,
        embedding_key=snakemake.params.embedding_key,
        embedding_code=snakemake.params.embedding_code,
        model=wildcards.model,
        index_name=wildcards.index,
        k=snakemake.params.k,
        threads=snakemake.threads,
        gpu=bool(snakemake.resources.gpu),
    )
