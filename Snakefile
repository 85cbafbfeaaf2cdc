"""Which image embedding finds your pictures? Targets: the experiments of the configuration, each by its name."""

import sys

sys.path.insert(0, f"{workflow.basedir}/workflow_scripts")

from lookalike.job.errors import ConfigError
from lookalike.plan.plan import (
    Plan,
    check_working_directory,
    share_library,
    why_not_writable,
)

share_library()


configfile: f"{workflow.basedir}/config.yaml"


try:
    check_working_directory()
    plan = Plan.of(config, reversed(workflow.configfiles))  # the catalogue first
except ConfigError as error:
    sys.exit(f"The configuration is wrong; nothing was run.\n{error}")


onstart:
    if reason := why_not_writable("results"):
        sys.exit(reason)


wildcard_constraints:
    dataset=plan.pattern(plan.config.datasets),
    model=plan.pattern(plan.config.models),
    weights=plan.pattern(plan.weights_names()),
    index=plan.pattern(plan.config.indexes),
    shard=plan.pattern(plan.all_shard_ids()),
    experiment=plan.pattern(plan.config.experiments),


localrules:
    all,
    fetch_weights,


rule all:
    input:
        plan.all_targets(),


include: "rules/sample.smk"
include: "rules/embed.smk"
include: "rules/index.smk"
include: "rules/search.smk"
include: "rules/measure.smk"
include: "rules/compare.smk"
include: "rules/report.smk"


for experiment in plan.config.experiments:

    rule:
        name:
            experiment
        input:
            plan.targets(experiment),
