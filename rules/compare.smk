"""The models of an experiment against each other, and the duplicates among the images that they were compared on.

inputs:   metrics, search results and audits of every model and index of the experiment; the sample, its true matches
          and near-duplicates; what the first model saw of every image, for the hashes
outputs:  results/reports/{experiment}/leaderboard.csv       tidy: one row a model, index and metric
          results/reports/{experiment}/comparisons.json      pairwise comparison: better, worse, cannot tell
          results/reports/{experiment}/duplicates.json       how many files are duplicates
          results/reports/{experiment}/duplicates.parquet    which
refuses:  numbers and neighbors of different searches, models that saw other images, two models of one checkpoint whose
          weights differ
"""


rule compare:
    """Compare the models of an experiment"""
    input:
        metrics=lambda wildcards: plan.per_model(
            wildcards.experiment, "results/{dataset}/metrics/{model}/{index}.json"
        ),
        neighbors=lambda wildcards: plan.searched(wildcards.experiment, "neighbors"),
        candidates=lambda wildcards: plan.searched(wildcards.experiment, "candidates"),
        training=lambda wildcards: plan.searched(wildcards.experiment, "training"),
        candidates_sn=lambda wildcards: plan.searched(
            wildcards.experiment, "candidates_sn"
        ),
        classes=lambda wildcards: plan.searched(wildcards.experiment, "classes"),
        audit=lambda wildcards: plan.audited(wildcards.experiment),
        near_duplicates=lambda wildcards: plan.near_duplicates(
            plan.dataset_of(wildcards.experiment)
        ),
        images=lambda wildcards: f"results/{plan.dataset_of(wildcards.experiment)}/sample/images.parquet",
        truth=lambda wildcards: f"results/{plan.dataset_of(wildcards.experiment)}/sample/truth.parquet",
    output:
        leaderboard=report(
            "results/reports/{experiment}/leaderboard.csv",
            caption="captions/leaderboard.rst",
            category="Numbers",
            labels=lambda wildcards: {
                "experiment": plan.title(wildcards.experiment),
                "file": "metrics (CSV)",
            },
        ),
        comparisons=report(
            "results/reports/{experiment}/comparisons.json",
            caption="captions/comparisons.rst",
            category="Numbers",
            labels=lambda wildcards: {
                "experiment": plan.title(wildcards.experiment),
                "file": "comparisons (JSON)",
            },
        ),
    log:
        "results/logs/compare/{experiment}.log",
    conda:
        plan.environment
    params:
        models=lambda wildcards: list(
            plan.config.experiments[wildcards.experiment].models
        ),
        design=lambda wildcards: plan.design(wildcards.experiment),
        architectures=lambda wildcards: plan.architectures(wildcards.experiment),
        code=plan.code("compare"),
    script:
        "../workflow_scripts/compare.py"


# By the hashes of what one model saw: models that saw other bytes are not compared.
rule find_duplicates:
    """List the duplicates of an experiment's data set"""
    input:
        seen=lambda wildcards: plan.seen_of(wildcards.experiment)[0],
        images=rules.compare.input.images,
        truth=rules.compare.input.truth,
    output:
        counts=report(
            "results/reports/{experiment}/duplicates.json",
            caption="captions/duplicates.rst",
            category="Duplicates",
            labels=lambda wildcards: {
                "experiment": plan.title(wildcards.experiment),
                "file": "counts (JSON)",
            },
        ),
        list="results/reports/{experiment}/duplicates.parquet",
    log:
        "results/logs/find_duplicates/{experiment}.log",
    conda:
        plan.environment
    params:
        code=plan.code("find_duplicates"),
    script:
        "../workflow_scripts/find_duplicates.py"
