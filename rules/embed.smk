"""Images to vectors, on a GPU where one is requested.

inputs:   results/{dataset}/sample/shards/{shard}.parquet
          results/{dataset}/images/{shard}.zip                those that its images are in, where a run made them
outputs:  results/weights/{weights}/weights.json              what exactly was fetched, by hash; models may share it
          results/exports/{weights}/{export}/export.json      the engine on a CPU; beside it, the network as ONNX
          results/{dataset}/embeddings/{model}/{shard}.parquet      vectors, not normalised
          results/{dataset}/rejected/{model}/{shard}.parquet        images that could not be used, and why
besides:  results/vector_store/                       vectors that were computed before; no rule's input or output, since
                                                     what it holds changes no file, and it may be deleted at any time
          results/logs/embed/{dataset}/{model}/{shard}.json   how long it took: a log, an output on remote storage
params:   what changes the vectors; resources: what does not
"""


rule fetch_weights:
    """Fetch a model's weights, and record what they are"""
    output:
        "results/weights/{weights}/weights.json",
    log:
        "results/logs/fetch_weights/{weights}.log",
    conda:
        plan.environment
    resources:
        download_seconds=lambda wildcards: plan.download_seconds(wildcards.weights),
    params:
        key=lambda wildcards: plan.weights_key(wildcards.weights),
        code=lambda wildcards: plan.weights_code(wildcards.weights),
    script:
        "../workflow_scripts/fetch_weights.py"


rule export:
    """Export a network to ONNX, in which it is fastest on a CPU, and compare both"""
    input:
        weights="results/weights/{weights}/weights.json",
    output:
        "results/exports/{weights}/{export}/export.json",
    log:
        "results/logs/export/{weights}/{export}.log",
    conda:
        plan.environment
    threads: lambda wildcards: plan.runtime(plan.exported_model(**wildcards)).threads
    resources:
        mem_mb=lambda wildcards, attempt: attempt
        * plan.export_memory(plan.exported_model(**wildcards)),
        runtime=lambda wildcards: plan.runtime(plan.exported_model(**wildcards)).minutes,
        batch_size=lambda wildcards, attempt: plan.batch_size(
            plan.exported_model(**wildcards), attempt
        ),
    params:
        key=lambda wildcards: plan.export_key(plan.exported_model(**wildcards)),
        code=lambda wildcards: plan.code(
            "export", model=plan.exported_model(**wildcards)
        ),
    script:
        "../workflow_scripts/export.py"


rule embed:
    """Embed a shard of images with a model"""
    input:
        shard="results/{dataset}/sample/shards/{shard}.parquet",
        archives=lambda wildcards: plan.archives_of_shard(
            wildcards.dataset, wildcards.shard
        ),
        weights=lambda wildcards: plan.weights(wildcards.model),
        export=lambda wildcards: plan.exports(wildcards.model),
    output:
        **remote(timing="results/logs/embed/{dataset}/{model}/{shard}.json"),
        embeddings="results/{dataset}/embeddings/{model}/{shard}.parquet",
        rejected="results/{dataset}/rejected/{model}/{shard}.parquet",
    log:
        **local(timing="results/logs/embed/{dataset}/{model}/{shard}.json"),
        text="results/logs/embed/{dataset}/{model}/{shard}.log",
    conda:
        plan.environment
    threads: lambda wildcards: plan.runtime(wildcards.model).threads
    resources:
        gpu=lambda wildcards: plan.runtime(wildcards.model).gpu,
        mem_mb=lambda wildcards, attempt: attempt * plan.runtime(wildcards.model).mem_mb,
        runtime=lambda wildcards, attempt: attempt
        * plan.runtime(wildcards.model).minutes,
        batch_size=lambda wildcards, attempt: plan.batch_size(wildcards.model, attempt),
        image_seconds=lambda wildcards: plan.runtime(wildcards.model).image_seconds,
        vector_store=lambda wildcards: int(plan.runtime(wildcards.model).vector_store),
    params:
        key=lambda wildcards: plan.embedding_key(wildcards.model),
        code=lambda wildcards: plan.code("embed", model=wildcards.model),
    script:
        "../workflow_scripts/embed.py"
