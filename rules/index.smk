"""Vectors of the references to a FAISS index.

inputs:   all embedding shards of a model on a data set with their tables of rejected images, and the sample
outputs:  results/{dataset}/indexes/{model}/{index}.faiss           of a scan index a list of the shards
          results/{dataset}/indexes/{model}/{index}.ids.parquet     row i names the image of vector i
          results/{dataset}/indexes/{model}/{index}.images.parquet  what the model saw of every image, or why it did not
refuses:  shards that were made with another configuration, other weights or other precision; images that are neither
          embedded nor rejected, or were changed since they were sampled; too few vectors to train on
"""


rule index:
    """Index a model's embeddings of the references"""
    input:
        embeddings=lambda wildcards: plan.embeddings(wildcards.dataset, wildcards.model),
        rejected=lambda wildcards: plan.rejected(wildcards.dataset, wildcards.model),
        images="results/{dataset}/sample/images.parquet",
    output:
        index="results/{dataset}/indexes/{model}/{index}.faiss",
        ids="results/{dataset}/indexes/{model}/{index}.ids.parquet",
        seen="results/{dataset}/indexes/{model}/{index}.images.parquet",
    log:
        "results/logs/index/{dataset}/{model}/{index}.log",
    conda:
        plan.environment
    threads: lambda wildcards: plan.index_runtime(wildcards.index).threads
    resources:
        gpu=lambda wildcards: plan.build_gpu(wildcards.index),
        mem_mb=lambda wildcards, attempt: attempt
        * plan.index_runtime(wildcards.index).mem_mb,
        runtime=lambda wildcards, attempt: attempt
        * plan.index_runtime(wildcards.index).minutes,
    params:
        key=lambda wildcards: plan.build_key(wildcards.index),
        embedding_key=lambda wildcards: plan.embedding_key(wildcards.model),
        embedding_code=lambda wildcards: plan.code("embed", model=wildcards.model),
        on_bad_image=lambda wildcards: plan.on_bad_image(wildcards.dataset),
        code=plan.code("index"),
    script:
        "../workflow_scripts/index.py"
