from lookalike.comparison import compare
from lookalike.job import job

with job(f"compare {snakemake.wildcards.experiment}", snakemake.log[0]):
    compare(
        experiment=snakemake.wildcards.experiment,
        metrics=snakemake.input.metrics,
        neighbors=snakemake.input.neighbors,
        truth=snakemake.input.truth,
        images=snakemake.input.images,
        models=snakemake.params.models,
        kinds=snakemake.params.kinds,
        leaderboard_out=snakemake.output.leaderboard,
        comparisons_out=snakemake.output.comparisons,
    )
