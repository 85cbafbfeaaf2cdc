"""Keys omit defaults, so if a default changed, old results would pass for new ones."""

from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from lookalike.config import datasets, indexes, models
from lookalike.plan.keys import LATER

COMMON = {"stored_dtype": "float32", "icc": "ignore"}
RESIZED = {**COMMON, "decode": "full"}
CHECKPOINT = {**RESIZED, "revision": "main", "size": None, "resize": "processor", "interpolation": None}
OPERATIONS = "crop blur jpeg rotate color brightness text shapes flip pad paste grey"
ALWAYS = "3637013.jpg 3662865.jpg 440375442.jpg 1377428277.jpg 57193495.jpg 1393947190.jpg"
FROZEN: dict[str, dict[str, Any]] = {
    "Pixels": {**COMMON, "size": 16},
    "ColorHistogram": {**COMMON, "bins": 8},
    "EfficientNetLite": {**RESIZED, "resize": "squash", "compute_dtype": "float32"},
    "Transformers": {**CHECKPOINT, "pooling": "none", "compute_dtype": "float32", "remote_code": False},
    "Blip2": {**CHECKPOINT, "compute_dtype": "float16"},
    "TorchScript": {
        **RESIZED,
        "url": None,
        "resize": "squash",
        "interpolation": "bilinear",
        "compute_dtype": "float32",
    },
    "Onnx": {
        **RESIZED,
        **dict.fromkeys(("path", "url", "package", "checkpoint", "file", "sha256", "size", "layout", "mean", "std")),
        "revision": "main",
        "resize": "squash",
        "interpolation": "bilinear",
        "channels": "rgb",
        "output": None,
        "pooling": "none",
        "batch": None,
    },
    "Hash": {**COMMON, "bits": 256},
    "PythonFactory": {**COMMON, "options": {}},
    "PhotoTiles": {"showcase": None, "tile": 144},
    "Folder": dict.fromkeys(("showcase", "queries", "truth", "same", "about", "training", "sample")),
    "Copies": {
        "showcase": None,
        "queries": 150,
        "without_match": 0,
        "seed": 0,
        "operations": tuple(OPERATIONS.split()),
        "strengths": ("light", "medium", "heavy"),
        "chains": 0.3,
        "max_side": 1024,
    },
    "Disc21": {
        "showcase": None,
        "references": "all",
        "queries": "development",
        "training": None,
        "truth": (),
    },
    "Flickr30k": {"showcase": None, "sample": None, "seed": 0, "captions": None, "always": tuple(ALWAYS.split())},
    "Coco": {"showcase": None, "annotations": None},
    "Index": {
        "factory": None,
        "scan": False,
        "search": {},
        "train": {"sample": 100_000, "seed": 0},
        "normalise": {"beta": 1.0, "first": 1, "last": 3},
    },
}


def records(kind: Any) -> list[type[BaseModel]]:
    """The members of a union that a key tells apart."""
    return list(get_args(get_args(kind)[0] if get_origin(kind) is Annotated else kind))


@pytest.mark.parametrize(
    "record", [*records(models.Embed), *records(datasets.Dataset), indexes.Index], ids=lambda record: record.__name__
)
def test_released_defaults_are_frozen(record: type[BaseModel]) -> None:
    defaults = {
        name: field.default.model_dump() if isinstance(field.default, BaseModel) else field.default
        for name, field in record.model_fields.items()
        if not field.is_required() and name not in LATER | {"runtime"}
    }
    assert defaults == FROZEN[record.__name__], "the meaning of a key has changed: give the setting a new name"
