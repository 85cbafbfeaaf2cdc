"""Wrong answers that show the scene of the right one.

inputs:   one model's neighbors and candidates, the sample and its true matches; the images of wrong answers
          themselves, and the archives of those that a run made
outputs:  results/{dataset}/audit/{model}/{index}.parquet    verdicts on wrong answers (docs/near-duplicates.md)
bounded:  by a number of pairs; what was not audited is counted, and the log says how long it took
"""


rule audit:
    """Compare the wrong answers of a search with the right ones"""
    input:
        neighbors="results/{dataset}/neighbors/{model}/{index}.parquet",
        candidates="results/{dataset}/neighbors/{model}/{index}.candidates.parquet",
        images="results/{dataset}/sample/images.parquet",
        truth="results/{dataset}/sample/truth.parquet",
        archives=lambda wildcards: plan.all_archives(wildcards.dataset),
    output:
        "results/{dataset}/audit/{model}/{index}.parquet",
    log:
        "results/logs/audit/{dataset}/{model}/{index}.log",
    conda:
        plan.environment
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: attempt * 2000,
        runtime=lambda wildcards, attempt: attempt * 60,
        image_seconds=lambda wildcards: plan.image_seconds(wildcards.dataset),
    params:
        k=lambda wildcards: plan.config.datasets[wildcards.dataset].k,
        code=plan.code("audit"),
    script:
        "../workflow_scripts/audit.py"
