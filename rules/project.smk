"""The vectors of a model on a plane, for the map of the report.

inputs:   all embedding shards of a model, what was found in them, the sample and its true matches
outputs:  results/{dataset}/map/{model}/{index}.parquet    places of images on a plane (docs/report.md)
bounded:  by a number of images, whatever the size of the data set
refuses:  vectors that are not those that were searched
read by:  the report only: no number depends on it
"""


rule project:
    """Project a model's vectors to a plane"""
    input:
        embeddings=lambda wildcards: plan.embeddings(wildcards.dataset, wildcards.model),
        neighbors="results/{dataset}/neighbors/{model}/{index}.parquet",
        showcase="results/{dataset}/neighbors/{model}/{index}.showcase.parquet",
        images="results/{dataset}/sample/images.parquet",
        truth="results/{dataset}/sample/truth.parquet",
    output:
        "results/{dataset}/map/{model}/{index}.parquet",
    log:
        "results/logs/project/{dataset}/{model}/{index}.log",
    conda:
        plan.environment
    params:
        code=plan.code("project"),
    script:
        "../workflow_scripts/project.py"
