"""The nearest references of every query, and the best pairs of all queries together.

inputs:   an index with its ids, the sample, and all embedding shards: queries, training and showcase images, and the
          references of a scan index
outputs:  results/{dataset}/neighbors/{model}/{index}.parquet                query, rank, reference, cosine similarity
          results/{dataset}/neighbors/{model}/{index}.showcase.parquet       the same for showcase images
          results/{dataset}/neighbors/{model}/{index}.candidates.parquet     the best 10 pairs a query over all queries
          results/{dataset}/neighbors/{model}/{index}.training.parquet       each query's nearest training images
          results/{dataset}/neighbors/{model}/{index}.candidates_sn.parquet  the candidates of normalised scores
          results/{dataset}/neighbors/{model}/{index}.classes.parquet        how much of its class each query found
          a table of a role that the data set lacks is empty, and its footer says `role: absent`
besides:  results/logs/search/{dataset}/{model}/{index}.json  how long it took: a log, an output on remote storage
refuses:  an index, ids and shards that were not made for each other
"""


rule search:
    """Find each query's nearest references with an index"""
    input:
        index="results/{dataset}/indexes/{model}/{index}.faiss",
        ids="results/{dataset}/indexes/{model}/{index}.ids.parquet",
        embeddings=lambda wildcards: plan.embeddings(wildcards.dataset, wildcards.model),
        images="results/{dataset}/sample/images.parquet",
    output:
        **remote(timing="results/logs/search/{dataset}/{model}/{index}.json"),
        neighbors="results/{dataset}/neighbors/{model}/{index}.parquet",
        showcase="results/{dataset}/neighbors/{model}/{index}.showcase.parquet",
        candidates="results/{dataset}/neighbors/{model}/{index}.candidates.parquet",
        training="results/{dataset}/neighbors/{model}/{index}.training.parquet",
        candidates_sn="results/{dataset}/neighbors/{model}/{index}.candidates_sn.parquet",
        classes="results/{dataset}/neighbors/{model}/{index}.classes.parquet",
    log:
        **local(timing="results/logs/search/{dataset}/{model}/{index}.json"),
        text="results/logs/search/{dataset}/{model}/{index}.log",
    conda:
        plan.environment
    threads: lambda wildcards: plan.index_runtime(wildcards.index).threads
    resources:
        gpu=lambda wildcards: plan.index_runtime(wildcards.index).gpu,
        mem_mb=lambda wildcards, attempt: attempt
        * plan.index_runtime(wildcards.index).mem_mb,
        runtime=lambda wildcards, attempt: attempt
        * plan.index_runtime(wildcards.index).minutes,
    params:
        k=lambda wildcards: plan.config.datasets[wildcards.dataset].k,
        parts=lambda wildcards: plan.config.parts(wildcards.dataset),
        key=lambda wildcards: plan.index_key(wildcards.index),
        build_key=lambda wildcards: plan.build_key(wildcards.index),
        embedding_key=lambda wildcards: plan.embedding_key(wildcards.model),
        embedding_code=lambda wildcards: plan.code("embed", model=wildcards.model),
        code=plan.code("search"),
    script:
        "../workflow_scripts/search.py"
