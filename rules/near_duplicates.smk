"""Files of a data set that show the same image: saved again, resized, compressed again or turned.

inputs:   all shards of a data set but those of its showcase, and the archives of images that a run made
outputs:  results/{dataset}/sample/near_duplicates.parquet    groups of images (docs/near-duplicates.md)
read by:  measure, compare and report only: no vector, index or search depends on it
left out: with `near_duplicates: off` in the data set's entry
"""


rule find_near_duplicates:
    """Group the files of a data set that show the same image"""
    input:
        shards=lambda wildcards: plan.compared_shards(wildcards.dataset),
        archives=lambda wildcards: plan.all_archives(wildcards.dataset),
    output:
        "results/{dataset}/sample/near_duplicates.parquet",
    log:
        "results/logs/find_near_duplicates/{dataset}.log",
    conda:
        plan.environment
    threads: 4
    resources:
        mem_mb=lambda wildcards, attempt: attempt * 4000,
        runtime=lambda wildcards, attempt: attempt * 240,
        image_seconds=lambda wildcards: plan.image_seconds(wildcards.dataset),
    params:
        code=plan.code("find_near_duplicates"),
    script:
        "../workflow_scripts/find_near_duplicates.py"
