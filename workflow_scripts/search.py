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
        gallery_out=snakemake.output.gallery,
        timing_out=snakemake.log.timing,
        key=snakemake.params.key,
        embedding_key=snakemake.params.embedding_key,
        model=wildcards.model,
        index_name=wildcards.index,
        k=snakemake.params.k,
    )
