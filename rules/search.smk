"""The nearest references of every query.

inputs:   an index with its ids, and the embedding shards that hold the queries
outputs:  results/{dataset}/neighbors/{model}/{index}.parquet           query, rank, reference, cosine similarity
          results/{dataset}/neighbors/{model}/{index}.gallery.parquet   the same of outside pictures; empty without them
"""


rule search:
    input:
        index="results/{dataset}/indexes/{model}/{index}.faiss",
        ids="results/{dataset}/indexes/{model}/{index}.ids.parquet",
        embeddings=lambda wildcards: plan.embeddings(wildcards.dataset, wildcards.model),
        images="results/{dataset}/sample/images.parquet",
    output:
        neighbors="results/{dataset}/neighbors/{model}/{index}.parquet",
        gallery="results/{dataset}/neighbors/{model}/{index}.gallery.parquet",
    log:
        text="results/logs/search/{dataset}/{model}/{index}.log",
        timing="results/logs/search/{dataset}/{model}/{index}.json",
    conda:
        plan.environment
    params:
        k=lambda wildcards: plan.config.datasets[wildcards.dataset].k,
        key=lambda wildcards: plan.index_key(wildcards.index),
        embedding_key=lambda wildcards: plan.embedding_key(wildcards.model),
        code=plan.code("search"),
    script:
        "../workflow_scripts/search.py"
