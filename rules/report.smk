"""The HTML report of an experiment.

inputs:   metrics, neighbors, neighbors of showcase images, audits, and what was seen of every image, for every model and
          index of the experiment; maps of its models, its comparisons and duplicates; the sample, its true matches and
          near-duplicates; the archives of images that a run made
outputs:  results/reports/{experiment}/index.html            self-contained, up to 20,000 queries or 15 MB
          results/reports/{experiment}/cases/                above that, the queries and thumbnails; else empty
refuses:  inputs that contradict each other
"""


rule report:
    """Write an experiment's HTML report"""
    input:
        metrics=rules.compare.input.metrics,
        comparisons=rules.compare.output.comparisons,
        duplicates=rules.find_duplicates.output.counts,
        neighbors=rules.compare.input.neighbors,
        showcase=lambda wildcards: plan.searched(wildcards.experiment, "showcase"),
        seen=lambda wildcards: plan.seen_of(wildcards.experiment),
        audit=rules.compare.input.audit,
        maps=lambda wildcards: plan.maps(wildcards.experiment),
        near_duplicates=rules.compare.input.near_duplicates,
        archives=lambda wildcards: plan.all_archives(
            plan.dataset_of(wildcards.experiment)
        ),
        images=rules.compare.input.images,
        truth=rules.compare.input.truth,
    output:
        page=report(
            "results/reports/{experiment}/index.html",
            caption="captions/report.rst",
            category="Answer",
            labels=lambda wildcards: {
                "experiment": plan.title(wildcards.experiment),
                "file": "report (HTML)",
            },
        ),
        # declared, so that Snakemake makes both again where one is lost; nothing reads it, so it needs no checksum
        cases=directory("results/reports/{experiment}/cases"),
    log:
        "results/logs/report/{experiment}.log",
    conda:
        plan.environment
    resources:
        image_seconds=lambda wildcards: plan.image_seconds(
            plan.dataset_of(wildcards.experiment)
        ),
    params:
        key=lambda wildcards: plan.report_key(wildcards.experiment),
        code=plan.code("report"),
    script:
        "../workflow_scripts/report.py"
