"""How to use a model: what it is made of, its score thresholds with their verdicts, and code to copy."""

import json
from dataclasses import dataclass
from typing import Any

from lookalike.io.formats.thresholds import Target
from lookalike.report import tables, words
from lookalike.report.evidence import Evidence, Run
from lookalike.report.needs import Need

PREPARED = ("size", "resize", "interpolation", "mean", "std", "decode")  # settings that change how images are prepared
# What a network of the package transformers returns, and how it becomes one vector an image.
FEATURES = {
    ("last_hidden_state", "cls"): 'getattr(model, "vision_model", model)(**inputs).last_hidden_state[:, 0]',
    ("pooler_output", "none"): 'getattr(model, "vision_model", model)(**inputs).pooler_output.flatten(1)',
    ("image_features", "none"): "model.get_image_features(**inputs)",
}

OURS = """\
import lookalike as la
import numpy as np

model = la.load_model({model})

def embed(paths):
    vectors = model.embed(paths)
    lengths = np.linalg.norm(vectors, axis=1)
    return vectors / lengths[:, None]

references = embed(["a.jpg", "b.jpg"])
scores = embed(["query.jpg"]) @ references.T  # cosine similarity
nearest = scores.argsort(axis=1)[:, ::-1]
"""

PLAIN = """\
import faiss
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModel

checkpoint, revision = {checkpoint}, {revision}
processor = AutoImageProcessor.from_pretrained(checkpoint, revision=revision, backend="pil")
model = AutoModel.from_pretrained(checkpoint, revision=revision).eval()

@torch.inference_mode()
def embed(paths):
    images = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in paths]
    inputs = processor(images=images, return_tensors="pt")
    vectors = {feature}
    vectors = getattr(vectors, "pooler_output", vectors).numpy().copy()
    faiss.normalize_L2(vectors)
    return vectors

index = faiss.IndexFlatIP({dimension})
index.add(embed(["a.jpg", "b.jpg"]))
scores, nearest = index.search(embed(["query.jpg"]), 2)  # cosine similarity
"""


@dataclass(frozen=True)
class Step:
    """A target precision: its threshold with the verdict, and where it is on the curve, in percent."""

    percent: str
    target: Target
    x: float
    y: float

    @property
    def score(self) -> str:
        """The threshold, rounded down; empty if no score reached the target."""
        used = self.target.safe or self.target.seen
        return words.score(used.score) if used else ""

    @property
    def recall(self) -> float | None:
        """The share of the true matches that it accepts."""
        used = self.target.safe or self.target.seen
        return used.recall if used else None

    @property
    def verdict(self) -> str:
        """Whether the threshold can be relied on."""
        verdict = self.target.verdict
        text = f"unverified: {verdict}" if verdict == "too few queries" else verdict
        return text if self.score else f"no score reaches {self.percent}{words.SPACE}%; {text}"

    @property
    def code(self) -> str:
        """The threshold as a line of Python."""
        value = self.score.replace("−", "-") or 'float("inf")'
        return f"threshold = {value}  # {self.percent} % precision: {self.verdict.replace(words.SPACE, ' ')}"


@dataclass(frozen=True)
class Card:
    """How to use one model; ``needs`` are the choices of the switch that lead to it."""

    run: Run
    needs: list[str]
    facts: list[tuple[str, str]]
    steps: list[Step]
    ignores: bool  # whether these ignore copies and other shots of the right scene
    curve: str  # points of an SVG polyline, in percent
    ours: str
    plain: str  # empty where the package transformers cannot load the model


def cards(evidence: Evidence, needs: list[Need]) -> list[Card]:
    """One card for each model that leads for a need."""
    leads: dict[tuple[str, str], tuple[Run, list[str]]] = {}
    for need in needs:
        if need.best:
            leads.setdefault((need.best.model, need.best.index), (need.best, []))[1].append(need.name)
    return [_card(evidence, run, names) for run, names in leads.values()]


def _card(evidence: Evidence, run: Run, names: list[str]) -> Card:
    settings = tables.settings(run.provenance.get("key", ""))
    settings = settings if isinstance(settings, dict) else {}
    end = tables.thresholds_end(evidence)
    curve = run.metrics.curves.get(f"uap{end}", run.metrics.curves.get("uap"))
    points = list(zip(curve.recall, curve.precision, strict=True)) if curve else []
    steps = [step(percent, target) for percent, target in run.metrics.targets(end).items()]
    return Card(
        run,
        names,
        facts(run, evidence.about.get(run.model), settings),
        steps,
        bool(end),
        " ".join(f"{100 * recall:.2f},{100 - 100 * precision:.2f}" for recall, precision in points),
        OURS.format(model=json.dumps(run.model, ensure_ascii=False)),
        _plain(run, settings),
    )


def step(percent: str, target: Target) -> Step:
    """A target precision on the card."""
    used = target.safe or target.seen
    return Step(percent, target, 100 * used.recall if used else 0.0, 100 - 100 * used.precision if used else 0.0)


def facts(run: Run, about: str | None, settings: dict[str, Any]) -> list[tuple[str, str]]:
    """What the model is made of, as far as it was recorded."""
    dimension = run.metrics.cost.dimension if run.metrics.cost else run.provenance.get("dimension")
    prepared = ", ".join(f"{name} {settings[name]}" for name in PREPARED if settings.get(name) is not None)
    vector = f"{dimension} dimensions; " if dimension else ""
    known = {
        "Model": run.model + (f"; {about}" if about else ""),
        "Weights": tables.weights(run.provenance.get("weights"), settings),
        "Output": ", ".join(str(settings[name]) for name in ("feature", "pooling") if settings.get(name)),
        "Preprocessing": prepared or ("the checkpoint’s own" if "checkpoint" in settings else ""),
        "Vector": f"{vector}divide it by its length, so that a dot product is the cosine similarity",
        "Index": run.index,
    }
    return [(name, value) for name, value in known.items() if value]


def _plain(run: Run, settings: dict[str, Any]) -> str:
    """Code without Lookalike; only where it prepares images as the workflow does."""
    known = {"family", "checkpoint", "revision", "feature", "pooling"}
    feature = FEATURES.get((settings.get("feature", ""), settings.get("pooling", "none")))
    dimension = run.metrics.cost.dimension if run.metrics.cost else run.provenance.get("dimension")
    checkpoint = str(settings.get("checkpoint", ""))
    if settings.get("family") != "transformers" or set(settings) - known or not feature or not dimension:
        return ""
    if checkpoint.startswith("timm/"):  # their image processors need torchvision
        return ""
    weights = run.provenance.get("weights")
    revision = (weights.get("revision") if isinstance(weights, dict) else "") or settings.get("revision")
    return PLAIN.format(
        checkpoint=json.dumps(checkpoint),
        revision=json.dumps(revision) if revision else None,
        feature=feature,
        dimension=dimension,
    )
