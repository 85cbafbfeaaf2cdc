from lookalike.job import job
from lookalike.measurement import measure

wildcards = snakemake.wildcards
with job(f"measure {wildcards.dataset} {wildcards.model} {wildcards.index}", snakemake.log[0]):
    measure(
        neighbors=snakemake.input.neighbors,
        truth=snakemake.input.truth,
        images=snakemake.input.images,
        rejected=snakemake.input.rejected,
        timings=snakemake.params.timings,
        search_timing=snakemake.params.search_timing,
        out=snakemake.output[0],
        dataset=wildcards.dataset,
        model=wildcards.model,
        index=wildcards.index,
        k=snakemake.params.k,
    )
