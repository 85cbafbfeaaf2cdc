from json import loads

from lookalike.compare.compare import CompareJob, compare
from lookalike.job.log import job
from lookalike.metrics.evaluation import results_of

with job(f"compare {snakemake.wildcards.experiment}", snakemake.log[0]):
    compare(
        CompareJob(
            experiment=snakemake.wildcards.experiment,
            metrics=snakemake.input.metrics,
            results=results_of(
                neighbors=snakemake.input.neighbors,
                candidates=snakemake.input.candidates,
                training=snakemake.input.training,
                candidates_sn=snakemake.input.candidates_sn,
                classes=snakemake.input.classes,
                audit=snakemake.input.audit,
                near_duplicates=snakemake.input.near_duplicates,
            ),
            truth=snakemake.input.truth,
            images=snakemake.input.images,
            models=snakemake.params.models,
            design=loads(snakemake.params.design),
            architectures=snakemake.params.architectures,
            leaderboard_out=snakemake.output.leaderboard,
            comparisons_out=snakemake.output.comparisons,
        )
    )
