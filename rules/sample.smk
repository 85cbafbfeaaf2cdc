"""Which images a data set has, in which roles, and how they are split into shards.

inputs:   the configuration; for `copies` the sample of the data set that is copied; tables that come with a data set
outputs:  results/{dataset}/images/{shard}.zip        images that the run makes, one archive per shard
          results/{dataset}/images/manifest.parquet   what those images are
          results/{dataset}/sample/images.parquet     one row per image (docs/tables.md)
          results/{dataset}/sample/truth.parquet      the true matches
          results/{dataset}/sample/shards/{shard}.parquet
"""

# A checkpoint, so that Snakemake decides about what reads an archive once it is there, by its content; one for each data
# set, since the names of its archives follow from its configuration. The wildcard has one value: a rule with a
# wildcard is not a target, so `snakemake --list-target-rules` lists experiments only. It comes after the data set's
# name: Snakemake compares each file that a job reads with all outputs that begin as it does.
for dataset in plan.creating_datasets():

    checkpoint:
        """Make the images of a data set that is made by the run"""
        name:
            f"make_images_{dataset}"
        input:
            **plan.images_input(dataset),
        output:
            archives=plan.with_wildcard("images", plan.archives(dataset)),
            manifest=f"results/{dataset}/{{stage}}/manifest.parquet",
        log:
            f"results/logs/make_{{stage}}/{dataset}.log",
        wildcard_constraints:
            stage="images",
        group:
            "sample"
        conda:
            plan.environment
        resources:
            image_seconds=plan.image_seconds(dataset),
        params:
            dataset=dataset,
            key=plan.images_key(dataset),
            code=plan.code("make_images", dataset=dataset),
        script:
            "../workflow_scripts/make_images.py"


# A snapshot: images that are added later are not seen until `--forcerun sample` looks again.
rule sample:
    """List the images of a data set, their roles, and the true matches"""
    input:
        unpack(lambda wildcards: plan.sample_input(wildcards.dataset)),
    output:
        images="results/{dataset}/sample/images.parquet",
        truth="results/{dataset}/sample/truth.parquet",
    log:
        "results/logs/sample/{dataset}.log",
    group:
        "sample"
    conda:
        plan.environment
    params:
        key=lambda wildcards: plan.dataset_key(wildcards.dataset),
        code=lambda wildcards: plan.code("sample", dataset=wildcards.dataset),
    script:
        "../workflow_scripts/sample.py"


# A checkpoint, so that Snakemake decides about embedding again once the shards are there, by their content; one for each
# data set, since their names follow from its configuration. Thousands of shards are several jobs: the time of a dry run
# grows with the number of a checkpoint's files times that of the jobs that read them. Those have no wildcard, which
# would have to be matched with each file, so that they are listed as targets.
for rule_name, dataset, shard_files in plan.shard_jobs():
    alone = shard_files == plan.shard_files(dataset)

    checkpoint:
        """Split a sample into shards"""
        name:
            rule_name
        input:
            images=f"results/{dataset}/sample/images.parquet",
            truth=f"results/{dataset}/sample/truth.parquet",
        output:
            plan.with_wildcard("shard", shard_files) if alone else shard_files,
        log:
            f"results/logs/{'{stage}' if alone else 'shard'}/{rule_name.removeprefix('shard_')}.log",
        wildcard_constraints:
            stage="shard",
        group:  # with the sample, unless there are several: they would all run at once in one job
            "sample" if alone else rule_name
        conda:
            plan.environment
        params:
            key=plan.shard_key(dataset),
            code=plan.code("shard"),
        script:
            "../workflow_scripts/shard.py"
