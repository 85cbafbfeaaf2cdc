from lookalike.job.log import job
from lookalike.measure.measure import MeasureJob, measure
from lookalike.metrics.evaluation import Results

wildcards = snakemake.wildcards
with job(f"measure {wildcards.dataset} {wildcards.model} {wildcards.index}", snakemake.log[0]):
    measure(
        MeasureJob(
            results=Results(
                neighbors=snakemake.input.neighbors,
                candidates=snakemake.input.candidates,
                training=snakemake.input.training,
                candidates_sn=snakemake.input.candidates_sn,
                classes=snakemake.input.classes,
                audit=snakemake.input.audit,
                near_duplicates=next(iter(snakemake.input.near_duplicates), None),
            ),
            truth=snakemake.input.truth,
            images=snakemake.input.images,
            seen=snakemake.input.seen,
            timings=snakemake.input.get("timings") or snakemake.params.timings,
            search_timing=snakemake.input.get("search_timing") or snakemake.params.search_timing,
            out=snakemake.output[0],
            dataset=wildcards.dataset,
            model=wildcards.model,
            index=wildcards.index,
            k=snakemake.params.k,
        )
    )
