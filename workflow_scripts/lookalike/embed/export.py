"""The `export` stage: a network to ONNX, compared with torch, so that embedding on a CPU needs no torch."""

import gc
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.embed import encoders, export_cache
from lookalike.embed.exported import INPUT, OUTPUT, Exported
from lookalike.embed.layout import pool, poolings
from lookalike.io import store
from lookalike.io.formats.exports import Export, Layout, Network, Resizing
from lookalike.io.formats.records import Weights
from lookalike.job import packages
from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)

BATCH_SIZES = (1, 2, 5, 16)  # in which both engines are compared
TOLERANCE = 1e-5  # largest difference of a vector from torch's, relative to its norm
NEEDED = ("onnx", "onnxscript", "onnxruntime")
FILE = "network.onnx"  # beside it, external data: ONNX files are limited to 2 GB


@dataclass(frozen=True)
class ExportJob:
    """A network to export. ``batch_size`` limits the memory of the comparison; ``code`` is a hash of the code."""

    weights: str
    out: str
    key: str
    code: str
    batch_size: int
    threads: int


class CannotExportError(Exception):
    """Why torch is used instead."""


def export(job: ExportJob) -> None:
    """Export a network, or take it from the user's cache, and record which engine embeds with it on a CPU.

    ``key``: what changes the network or its input (``EmbedBase.export_key``). A network that cannot be exported, or
    gives other vectors, is recorded with the reason: torch embeds then. Raises LookalikeError for a network that cannot
    be loaded, which no engine could embed with.
    """
    weights = store.read_json(job.weights, Weights)
    folder, cached = Path(job.out).parent, export_cache.folder_of(job.key, job.code, weights)
    facts: dict[str, Any] = {"key": job.key, "weights_checksum": store.checksum(weights)}
    network = export_cache.restore(cached, folder)
    if network is None:
        try:
            network = _exported(job, weights, folder)
        except CannotExportError as reason:
            log.warning("torch embeds with this network: %s", reason)
            store.write_json(Export(**facts, engine="torch", reason=str(reason)), job.out)
            return
        export_cache.save(network, folder, cached)
    store.write_json(Export(**facts, engine="onnxruntime", network=network), job.out)


def _exported(job: ExportJob, weights: Weights, folder: Path) -> Network:
    """Export to ``folder``. Raises CannotExportError, and removes what was written, if torch is to be used."""
    if lacking := packages.missing(["torch"]):  # torch could not embed with it either
        raise LookalikeError(f"{weights.source}: {packages.why_missing(lacking)}")
    if lacking := packages.missing(NEEDED):
        raise CannotExportError(packages.why_missing(lacking))
    entry = encoders.parse(job.key)
    encoder: Any = encoders.family(entry).load(entry, weights, encoders.Machine(job.threads))
    if encoder.geometry is None:
        raise CannotExportError("only its own image processor, which needs torch, prepares its images")
    images = np.stack([encoder.prepare(image) for image in _test_images()])
    sizes = tuple(size for size in BATCH_SIZES if size <= job.batch_size)
    expected = _features(encoder, images, sizes[-1])
    resizing = Resizing(**asdict(encoder.geometry))
    layout: Layout = encoder.layout
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        _write(encoder, images[:2], Path(temporary) / FILE)
        del encoder  # both engines' weights need not be in memory at once
        gc.collect()
        names = sorted(path.name for path in Path(temporary).iterdir())
        network = Network(
            files={name: store.sha256_file(Path(temporary) / name) for name in sorted(names, key=FILE.__ne__)},
            resizing=resizing,
            layout=layout,
            difference=0.0,
            batch_sizes=sizes,
            rows_equal=True,
            versions=store.versions("torch", "transformers", *NEEDED),
        )
        try:
            session = Exported(entry, network, Path(temporary), encoders.Machine(job.threads))
            network = _compared(session, network, images, expected)
        except LookalikeError as error:
            raise CannotExportError(f"ONNX Runtime cannot use the exported network: {error}") from error
        for name in names:
            (Path(temporary) / name).replace(folder / name)
    log.info(
        "exported: vectors differ from torch's by at most %.2g of their norm in batches of %s",
        network.difference,
        ", ".join(map(str, sizes)),
    )
    return network


def _write(encoder: Any, images: NDArray[np.uint8], path: Path) -> None:
    """Export the network of a torch encoder, from prepared images to the feature before pooling."""
    import torch

    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT], "verbose": False}
    example = (torch.from_numpy(images),)
    try:
        with _quiet(), torch.no_grad():
            module = encoder.traceable()
            if isinstance(module, torch.jit.ScriptModule):  # only the older exporter takes one
                axes = {INPUT: {0: "n"}, OUTPUT: {0: "n"}}
                torch.onnx.export(module, example, path, dynamo=False, dynamic_axes=axes, **names)
                return
            shapes = ({0: torch.export.Dim.DYNAMIC},)
            program = torch.onnx.export(module, example, dynamo=True, dynamic_shapes=shapes, **names)
            assert program is not None
            _without_masked_rows(program.model.graph)
            program.save(path)
    except Exception as error:  # torch's exporter raises whatever the network's code does
        if out_of_memory(error):
            raise
        lines = str(error).strip().splitlines()
        reason = f": {lines[0].rstrip('.')}" if lines else ""
        raise CannotExportError(f"torch cannot export it: {type(error).__name__}{reason}") from error


def _without_masked_rows(graph: Any) -> None:
    """Take out what torch's exporter adds after each softmax of attention: zeros for a row that is masked as a whole.

    It takes 4 % of the time of a ViT, in which nothing is masked. Where something is, vectors become NaN, and the
    comparison with torch refuses the network.
    """
    for node in list(graph):
        if node.op_type != "Where":
            continue
        test, kept = node.inputs[0].producer(), node.inputs[2]
        if test is None or test.op_type != "IsNaN" or test.inputs[0] is not kept:
            continue
        if kept.producer() is not None and kept.producer().op_type == "Softmax":
            for user, place in list(node.outputs[0].uses()):
                user.replace_input_with(place, kept)
            graph.remove([node, test], safe=True)


def _compared(encoder: Exported, network: Network, images: NDArray[np.uint8], expected: NDArray[np.float32]) -> Network:
    """The record with what the comparison found. Raises CannotExportError for vectors that differ too much."""
    features = [_features(encoder, images, size) for size in network.batch_sizes]
    difference = max(
        _difference(*(pool(feature, pooling, network.layout, "") for feature in (expected, found)))
        for found in features
        for pooling in poolings(network.layout)
    )
    if not difference <= TOLERANCE:  # nor NaN
        raise CannotExportError(
            f"the exported network's vectors differ from torch's by {difference:.2g} of their norm, more than "
            f"{TOLERANCE:g}"
        )
    equal = all(np.array_equal(features[0], found) for found in features[1:])
    return network.model_copy(update={"difference": float(f"{difference:.2g}"), "rows_equal": equal})


def _features(encoder: Any, images: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """The outputs before pooling, computed in batches of ``size``."""
    batches = [images[start : start + size] for start in range(0, len(images), size)]
    if isinstance(encoder, Exported):
        return np.concatenate([encoder.feature(batch) for batch in batches])
    import torch

    with torch.inference_mode():
        return np.concatenate([encoder.feature(torch.from_numpy(batch)).numpy() for batch in batches])


def _difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The largest distance of two vectors, relative to the norm of the expected one."""
    exact = expected.astype(np.float64)
    norms = np.maximum(np.linalg.norm(exact, axis=1), float(np.finfo(np.float32).tiny))
    return float((np.linalg.norm(found - exact, axis=1) / norms).max())


def _test_images() -> list[Image.Image]:
    """Images from smooth to noisy, of several shapes."""
    draw = np.random.default_rng(0)
    images = []
    for number in range(max(BATCH_SIZES)):
        detail = draw.integers(0, 256, (4 << number % 4, 6 << number % 4, 3), np.uint8)
        size = ((331, 200), (200, 331), (97, 97), (640, 427))[number // 4]
        images.append(Image.fromarray(detail).resize(size, Image.Resampling.BICUBIC))
    return images


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that it could use, and on its own future."""
    noisy = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript"), logging.getLogger("onnx_ir")
    levels = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
