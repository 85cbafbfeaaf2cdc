"""The nearest references of every query, and the best pairs of all queries together.

inputs:   an index with its ids, the sample, and all embedding shards: queries, training and outside pictures, and of a
          scan index the references
outputs:  results/{dataset}/neighbors/{model}/{index}.parquet            query, rank, reference, cosine similarity
          results/{dataset}/neighbors/{model}/{index}.showcase.parquet    the same of outside pictures; empty without them
          results/{dataset}/neighbors/{model}/{index}.candidates.parquet       the best 10 pairs a query over all queries
          where the data set has training pictures:
          results/{dataset}/neighbors/{model}/{index}.training.parquet   each query's nearest training pictures
          results/{dataset}/neighbors/{model}/{index}.candidates_sn.parquet    the candidates of normalised scores
refuses:  an index, ids and shards that were not made for each other
"""

# Outputs cannot depend on a wildcard: one rule for each set of files that data sets have.
for name, extras in search_variants().items():

    rule:
        """Find each query's nearest references with an index"""
        name:
            name
        input:
            index="results/{dataset}/indexes/{model}/{index}.faiss",
            ids="results/{dataset}/indexes/{model}/{index}.ids.parquet",
            embeddings=lambda wildcards: plan.embeddings(
                wildcards.dataset, wildcards.model
            ),
            images="results/{dataset}/sample/images.parquet",
        output:
            **search_outputs(extras),
        log:
            text="results/logs/search/{dataset}/{model}/{index}.log",
            timing="results/logs/search/{dataset}/{model}/{index}.json",
        wildcard_constraints:
            dataset=plan.pattern(plan.searched_by(extras)),
        conda:
            plan.environment
        threads: lambda wildcards: plan.index_runtime(wildcards.index).threads
        resources:
            gpu=lambda wildcards: plan.index_runtime(wildcards.index).gpu,
            mem_mb=lambda wildcards, attempt: attempt
            * plan.index_runtime(wildcards.index).mem_mb,
            runtime=lambda wildcards: plan.index_runtime(wildcards.index).minutes,
        params:
            k=lambda wildcards: plan.config.datasets[wildcards.dataset].k,
            key=lambda wildcards: plan.index_key(wildcards.index),
            build_key=lambda wildcards: plan.build_key(wildcards.index),
            embedding_key=lambda wildcards: plan.embedding_key(wildcards.model),
            embedding_code=lambda wildcards: plan.code("embed", model=wildcards.model),
            code=plan.code("search"),
        script:
            "../workflow_scripts/search.py"
