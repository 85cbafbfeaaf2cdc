"""Neighbors and truth to numbers with intervals.

inputs:   the results of one model's search with one index and the audit of its wrong answers; the sample, its true
          matches and near-duplicates; what the model saw of every image: sizes, and which were rejected
outputs:  results/{dataset}/metrics/{model}/{index}.json
reads besides: timings, which may be missing where they are logs. A clock must not decide about reruns: on remote storage,
          where jobs find only what is declared, they are inputs whose dates do not count (`ancient`); what changes
          vectors or neighbors reruns this rule through those
"""


rule measure:
    """Measure what a model found with an index"""
    input:
        **remote(
            timings=ancient(
                lambda wildcards: plan.timings(wildcards.dataset, wildcards.model)
            ),
            search_timing=ancient(
                "results/logs/search/{dataset}/{model}/{index}.json"
            ),
        ),
        neighbors="results/{dataset}/neighbors/{model}/{index}.parquet",
        candidates="results/{dataset}/neighbors/{model}/{index}.candidates.parquet",
        training="results/{dataset}/neighbors/{model}/{index}.training.parquet",
        candidates_sn="results/{dataset}/neighbors/{model}/{index}.candidates_sn.parquet",
        classes="results/{dataset}/neighbors/{model}/{index}.classes.parquet",
        audit="results/{dataset}/audit/{model}/{index}.parquet",
        near_duplicates=lambda wildcards: plan.near_duplicates(wildcards.dataset),
        seen="results/{dataset}/indexes/{model}/{index}.images.parquet",
        images="results/{dataset}/sample/images.parquet",
        truth="results/{dataset}/sample/truth.parquet",
    output:
        "results/{dataset}/metrics/{model}/{index}.json",
    log:
        "results/logs/measure/{dataset}/{model}/{index}.log",
    conda:
        plan.environment
    params:
        k=lambda wildcards: plan.config.datasets[wildcards.dataset].k,
        timings=lambda wildcards: plan.timings(wildcards.dataset, wildcards.model),
        search_timing="results/logs/search/{dataset}/{model}/{index}.json",
        # not read by the script: numbers of an older model must not remain when a job above this one failed
        made_with=lambda wildcards: [
            plan.embedding_key(wildcards.model),
            plan.index_key(wildcards.index),
        ],
        code=plan.code("measure"),
    script:
        "../workflow_scripts/measure.py"
