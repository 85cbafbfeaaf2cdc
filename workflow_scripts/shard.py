from lookalike.job.log import job
from lookalike.sample.shard import write_shards

with job(snakemake.rule, snakemake.log[0]):
    write_shards(
        images=snakemake.input.images,
        truth=snakemake.input.truth,
        key=snakemake.params.key,
        outputs=snakemake.output,
    )
