from lookalike.job.log import job
from lookalike.search.search import SearchJob, search

wildcards = snakemake.wildcards
with job(f"search {wildcards.dataset} {wildcards.model} {wildcards.index}", snakemake.log.text):
    search(
        SearchJob(
            index=snakemake.input.index,
            ids=snakemake.input.ids,
            embeddings=snakemake.input.embeddings,
            images=snakemake.input.images,
            out=snakemake.output.neighbors,
            candidates_out=snakemake.output.candidates,
            showcase_out=snakemake.output.showcase,
            training_out=snakemake.output.training,
            candidates_sn_out=snakemake.output.candidates_sn,
            classes_out=snakemake.output.classes,
            timing_out=snakemake.output.get("timing") or snakemake.log.timing,
            key=snakemake.params.key,
            build_key=snakemake.params.build_key,
            embedding_key=snakemake.params.embedding_key,
            embedding_code=snakemake.params.embedding_code,
            model=wildcards.model,
            index_name=wildcards.index,
            k=snakemake.params.k,
            parts=snakemake.params.parts,
            threads=snakemake.threads,
            gpu=bool(snakemake.resources.gpu),
        )
    )
