"""The models of an experiment against each other, and a page to look at.

inputs:   metrics, all that was found, and rejected pictures of every model and index of the experiment, the sample and
          its true matches, and the first model's embedding shards, of which only the pictures' hashes are read
outputs:  results/reports/{experiment}/leaderboard.csv       tidy: one row a model, index and metric
          results/reports/{experiment}/comparisons.json      every two models: better, worse, cannot tell
          results/reports/{experiment}/duplicates.json       how many files are there twice
          results/reports/{experiment}/duplicates.parquet    which
          results/reports/{experiment}/index.html            self-contained
refuses:  numbers and neighbors of different searches, models that saw other pictures, two models of one checkpoint whose
          weights differ
"""


rule compare:
    """Compare the models of an experiment"""
    input:
        metrics=lambda wildcards: plan.per_model(
            wildcards.experiment, "results/{dataset}/metrics/{model}/{index}.json"
        ),
        neighbors=lambda wildcards: plan.found_of(wildcards.experiment, "neighbors"),
        candidates=lambda wildcards: plan.found_of(wildcards.experiment, "candidates"),
        trainings=lambda wildcards: plan.found_of(wildcards.experiment, "training"),
        candidates_sn=lambda wildcards: plan.found_of(
            wildcards.experiment, "candidates_sn"
        ),
        images=lambda wildcards: f"results/{plan.dataset_of(wildcards.experiment)}/sample/images.parquet",
        truth=lambda wildcards: f"results/{plan.dataset_of(wildcards.experiment)}/sample/truth.parquet",
    output:
        leaderboard=report(
            "results/reports/{experiment}/leaderboard.csv",
            caption="captions/leaderboard.rst",
            labels={"file": "leaderboard (CSV)"},
            category=lambda wildcards: plan.title(wildcards.experiment),
        ),
        comparisons="results/reports/{experiment}/comparisons.json",
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


# By the hashes of one model's shards: models that saw other bytes are not compared.
rule find_duplicates:
    """List the duplicates of an experiment's data set"""
    input:
        embeddings=lambda wildcards: plan.embeddings(
            plan.dataset_of(wildcards.experiment),
            plan.config.experiments[wildcards.experiment].models[0],
        ),
        images=rules.compare.input.images,
        truth=rules.compare.input.truth,
    output:
        counts="results/reports/{experiment}/duplicates.json",
        list="results/reports/{experiment}/duplicates.parquet",
    log:
        "results/logs/find_duplicates/{experiment}.log",
    conda:
        plan.environment
    params:
        code=plan.code("find_duplicates"),
    script:
        "../workflow_scripts/find_duplicates.py"


rule report:
    """Write an experiment's HTML report"""
    input:
        metrics=rules.compare.input.metrics,
        comparisons=rules.compare.output.comparisons,
        duplicates=rules.find_duplicates.output.counts,
        neighbors=rules.compare.input.neighbors,
        showcase=lambda wildcards: plan.showcase_neighbors(wildcards.experiment),
        rejected=lambda wildcards: plan.rejected_of(wildcards.experiment),
        images=rules.compare.input.images,
        truth=rules.compare.input.truth,
    output:
        report(
            "results/reports/{experiment}/index.html",
            caption="captions/report.rst",
            labels={"file": "report (HTML)"},
            category=lambda wildcards: plan.title(wildcards.experiment),
        ),
    log:
        "results/logs/report/{experiment}.log",
    conda:
        plan.environment
    params:
        key=lambda wildcards: plan.report_key(wildcards.experiment),
        code=plan.code("report"),
    script:
        "../workflow_scripts/report.py"
