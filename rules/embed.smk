"""Pictures to vectors: the only stage that uses a GPU.

inputs:   results/{dataset}/sample/shards/{shard}.parquet
          results/{dataset}/images/{shard}.zip                      those that its pictures are in, where a run made them
          results/weights/{model}.json                              what exactly was fetched, by hash
outputs:  results/{dataset}/embeddings/{model}/{shard}.parquet      vectors, not normalised
          results/{dataset}/embeddings/{model}/{shard}.rejected.parquet   pictures that could not be used, and why
params:   what changes the vectors; resources: what does not
"""


rule fetch_weights:
    output:
        "results/weights/{model}.json",
    log:
        "results/logs/fetch_weights/{model}.log",
    conda:
        plan.environment
    resources:
        pictures_first=100,  # all there are: not while a sample job looks, on however many cores, and one at a time
    params:
        key=lambda wildcards: plan.embedding_key(wildcards.model),
        factory=lambda wildcards: plan.factory_hash(wildcards.model),
    script:
        "../workflow_scripts/fetch_weights.py"


rule embed:
    input:
        shard="results/{dataset}/sample/shards/{shard}.parquet",
        archives=lambda wildcards: plan.archives_of_shard(
            wildcards.dataset, wildcards.shard
        ),
        weights="results/weights/{model}.json",
    output:
        embeddings="results/{dataset}/embeddings/{model}/{shard}.parquet",
        rejected="results/{dataset}/embeddings/{model}/{shard}.rejected.parquet",
    log:
        text="results/logs/embed/{dataset}/{model}/{shard}.log",
        timing="results/logs/embed/{dataset}/{model}/{shard}.json",
    conda:
        plan.environment
    threads: lambda wildcards: plan.runtime(wildcards.model).threads
    resources:
        gpu=lambda wildcards: plan.runtime(wildcards.model).gpu,
        mem_mb=lambda wildcards, attempt: attempt * plan.runtime(wildcards.model).mem_mb,
        runtime=lambda wildcards: plan.runtime(wildcards.model).minutes,
        batch_size=lambda wildcards, attempt: plan.batch_size(wildcards.model, attempt),
        on_bad_image=lambda wildcards: plan.on_bad_image(wildcards.dataset),
    params:
        key=lambda wildcards: plan.embedding_key(wildcards.model),
        code=lambda wildcards: plan.code("embed", model=wildcards.model),
    script:
        "../workflow_scripts/embed.py"
