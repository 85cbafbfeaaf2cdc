from lookalike.job.log import job
from lookalike.sample.shard import ShardJob, write_shards

with job(snakemake.rule, snakemake.log[0]):
    write_shards(
        ShardJob(
            images=snakemake.input.images,
            truth=snakemake.input.truth,
            key=snakemake.params.key,
            shards_out=snakemake.output,
        )
    )
