"""Packages that jobs need beyond those of the base installation, checked before the first job starts."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from lookalike.io import store
from lookalike.io.formats.exports import Export
from lookalike.job import packages
from lookalike.job.errors import LookalikeError
from lookalike.plan.plan import Plan

NEEDS = {  # family -> modules that compute its vectors
    **dict.fromkeys(("transformers", "blip2"), ("torch", "transformers")),
    "torchscript": ("torch",),
    "efficientnet_lite": ("torch", "efficientnet_lite_pytorch"),
    "onnx": ("onnxruntime",),
}
WITH_FAISS = {"find_near_duplicates", "index", "search"}  # rules


def missing(plan: Plan, model: str, results: Path = Path("results"), *, exports_again: bool = False) -> list[str]:
    """Modules that embedding with a model needs and this Python lacks.

    A network that a run exported needs ONNX Runtime only, unless that run ``exports_again``.
    """
    needed: Iterable[str] = NEEDS.get(plan.config.models[model].embed.family, ())
    if not exports_again and any(_engine(results, export) == "onnxruntime" for export in plan.exports(model)):
        needed = ("onnxruntime",)
    return packages.missing(needed)


def report(plan: Plan, jobs: Iterable[tuple[str, Mapping[str, str]]]) -> list[str]:
    """One line for each set of packages that jobs need and this Python lacks: who needs them, how to install them.

    ``jobs``: the rule and the wildcards of each.
    """
    rules, embeds, exports = set[str](), list[str](), list[str]()
    for rule, wildcards in jobs:
        rules.add(rule)
        if rule == "embed":
            embeds.append(wildcards["model"])
        elif rule == "export":
            exports.append(plan.exported_model(wildcards["weights"], wildcards["export"]))
    paths = {path for model in exports for path in plan.exports(model)}
    users: dict[tuple[str, ...], list[str]] = {}
    for model in dict.fromkeys([*embeds, *exports]):
        lacking = missing(plan, model, exports_again=not paths.isdisjoint(plan.exports(model)))
        users.setdefault(tuple(lacking), []).append(f"models.{model}")
    if using := sorted(WITH_FAISS & rules):
        users.setdefault(tuple(packages.missing(["faiss"])), []).extend(f"rule {rule}" for rule in using)
    return [f"{', '.join(names)}: {packages.why_missing(lacking)}" for lacking, names in users.items() if lacking]


def _engine(results: Path, export: str) -> str | None:
    """The engine that an export recorded; None without a readable record."""
    try:
        return store.read_json(results / Path(export).relative_to("results"), Export).engine
    except LookalikeError:
        return None
