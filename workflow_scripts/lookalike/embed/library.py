"""``lookalike.load_model`` and ``lookalike.models``: a run's models in a program, with the same numbers."""

import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from lookalike.embed import encoders, export
from lookalike.embed.batches import Embedded
from lookalike.embed.catalogue import Catalogue, offline
from lookalike.embed.embed import Row, decides, embed_rows
from lookalike.embed.file_hashes import cache_folder
from lookalike.embed.onnx_session import cuda_devices
from lookalike.embed.reuse import Known, embed_missing
from lookalike.embed.watched import Watched
from lookalike.io import archives, images, in_work, store
from lookalike.io.formats.exports import Export
from lookalike.io.formats.records import Weights
from lookalike.io.formats.tables import SHARD
from lookalike.io.vector_store import VectorStore
from lookalike.io.vectors import unit
from lookalike.job import packages
from lookalike.job.errors import LookalikeError
from lookalike.job.telemetry import switch_off_telemetry

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

ImageInput = str | os.PathLike[str] | bytes | NDArray[np.uint8] | Image.Image
Configuration = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None
ENTRY = "entry"  # the name of a model that is given by its entry
SHOWN = 3  # images that an error lists
DIGITS = 7  # of a cosine: vectors are float32, further digits are noise


class Model:
    """A loaded model: images in, vectors out. Made by ``load_model``.

    name: of its entry. dimension: of the vectors. device: for people, such as ``CPU (2 threads)``.
    engine: what computes, as in the footer of a run's embeddings: name, version, instructions.
    """

    name: str
    dimension: int
    device: str
    engine: dict[str, str]

    def __init__(
        self, name: str, decides: dict[str, Any], encoder: encoders.Encoder, *, batch_size: int, threads: int
    ) -> None:
        self.name, self.dimension, self.device = name, encoder.dimension, encoder.device
        self.engine = encoders.engine(encoder)
        entry = encoders.parse(decides["key"])
        self._stored_dtype: str = entry.stored_dtype
        self._reusable: bool = entry.reusable
        self._decides = decides
        self._encoder, self._batch_size, self._threads = encoder, batch_size, threads

    def __repr__(self) -> str:
        return f"<lookalike.Model {self.name}: {self.dimension} dimensions, {self.device}>"

    def embed(self, images: Iterable[ImageInput], *, errors: Literal["raise", "nan"] = "raise") -> NDArray[np.float32]:
        """Embed images: (n, d) float32, not normalised; row i is of image i.

        images: paths (a member of an archive is ``photos.zip!a.jpg``), bytes of image files, (height, width, 3) uint8
            arrays of RGB, and PIL images, also mixed. All are prepared as the files of a run: upright, without
            transparency, in RGB. Equal bytes get equal vectors.
        errors: ``raise``, or ``nan`` to give an image that cannot be used a row of NaN and log the reason.

        Raises LookalikeError, which lists the unusable images and why; and whatever ``errors``, for an argument that
        is not an image, for vectors that are not finite, and if memory runs out.

        >>> import numpy as np
        >>> import lookalike as la
        >>> model = la.load_model({"family": "pixels", "size": 2})
        >>> grey = np.full((8, 8, 3), 50, np.uint8)
        >>> grey[:4] = 90
        >>> model.embed([grey])
        array([[ 20.,  20., -20., -20.]], dtype=float32)
        """
        if errors not in ("raise", "nan"):
            raise LookalikeError(f"errors: is {errors!r}. Use 'raise' or 'nan'.")
        given = _Given(images)
        done = embed_rows(
            given.table(),
            self._encoder,
            batch_size=self._batch_size,
            threads=self._threads,
            stored_dtype=self._stored_dtype,
            guard=given,
        )
        if done.rejected and errors == "raise":
            reasons = [f"{image.path}: {image.reason}" for image in done.rejected]
            more = ["..."] if len(reasons) > SHOWN else []
            raise LookalikeError(
                f"{len(reasons)} of {len(given.images)} images cannot be embedded: "
                f"{'; '.join(reasons[:SHOWN] + more)}. Leave them out, or set errors='nan' for rows of NaN."
            )
        vectors = np.full((len(given.images), self.dimension), np.nan, np.float32)
        vectors[[int(image.image_id) for image in done.images]] = done.vectors
        return vectors

    def embed_files(
        self, rows: pa.Table, guard: in_work.Guard, see: Callable[[Image.Image], None], store: Path
    ) -> Embedded:
        """Embed the rows of a SHARD table, for commands: vectors that the vector store in ``store`` has are taken from
        there, others are added. ``see`` is given each image that is decoded (``embed.watched``)."""
        encoder = cast(encoders.Encoder, Watched(self._encoder, see))
        with VectorStore(store, self._decides) as kept:

            def compute(part: pa.Table, known: Known | None = None) -> Embedded:
                return embed_rows(
                    part,
                    encoder,
                    batch_size=self._batch_size,
                    threads=self._threads,
                    stored_dtype=self._stored_dtype,
                    guard=guard,
                    known=known,
                    keep=kept.add,
                )

            if not self._reusable:
                return compute(rows)
            done, _ = embed_missing(rows, kept, self._threads, compute, guard.read)
            kept.flush()
            return done

    def similarity(self, first: ImageInput, second: ImageInput) -> float:
        """The cosine of two images' vectors, from -1 to 1, as ``lookalike pair`` prints it; 0 for a vector of zeros.

        Raises LookalikeError as ``embed`` does.
        """
        a, b = unit(self.embed([first, second]).astype(np.float64))
        return round(float(a @ b), DIGITS)


def load_model(
    model: str | Mapping[str, Any],
    *,
    config: Configuration = None,
    results: str | os.PathLike[str] = "results",
    gpu: bool | None = None,
    threads: int | None = None,
) -> Model:
    """Load a model that computes the vectors that a run would.

    model: a name of the catalogue or of ``config``; or an entry, either ``{"family": ..., ...}`` as under `embed:` in
        a configuration, or the whole ``{"embed": {...}, "runtime": {...}}``
    config: a configuration file, or several, merged over the catalogue as by ``snakemake --configfile``
    results: the results folder of a run, if there is one: the weights and the exported network that it recorded are
        used. Otherwise weights are found locally or downloaded, and checked as in a run, and a network is exported to
        ONNX once, into the user's cache, if the packages for that are installed.
    gpu: whether to use a GPU if there is one; by default as in the entry's `runtime:`
    threads: CPU threads, by default all

    Raises LookalikeError for an unknown name (with a suggestion), a wrong entry, missing weights or packages; the
    message says what to do.

    >>> import lookalike as la
    >>> la.load_model("pixels").dimension
    256
    """
    switch_off_telemetry()
    entries, name = ({}, model) if isinstance(model, str) else ({ENTRY: _whole(model)}, ENTRY)
    catalogue = Catalogue.open(_paths(config), Path(results), entries)
    catalogue.check_models([name])
    runtime = catalogue.plan.runtime(name)
    machine = encoders.Machine(threads or os.cpu_count() or 1, bool(runtime.gpu) if gpu is None else gpu)
    weights = _weights(catalogue, name)
    key, exported = catalogue.plan.embedding_key(name), catalogue.export(name, weights)
    if exported is None and not (machine.gpu and (cuda_devices() or Path("/dev/kfd").exists())):
        exported = _export(catalogue, name, weights, machine.threads)
    encoder = encoders.load(key, weights, machine, exported)
    footer = decides(key, catalogue.plan.code("embed", model=name), weights, encoder)
    return Model(name, footer, encoder, batch_size=runtime.batch_size, threads=machine.threads)


def models(config: Configuration = None) -> "pd.DataFrame":
    """The models of the catalogue and of ``config``, one row each, sorted as there.

    Columns: name, label, family, licence, parameters, dimension, image_size (pixels), trained_on, and needs: what is
    missing on this machine to load the model offline, empty if nothing is. Unknown numbers are ``<NA>``.

    >>> import lookalike as la
    >>> la.models().loc[0, ["name", "family", "dimension", "needs"]].astype(str).to_list()
    ['pixels', 'pixels', '256', '']
    """
    import pandas as pd

    switch_off_telemetry()
    catalogue = Catalogue.open(_paths(config), Path("results"))
    rows = []
    for name in catalogue.model_names:
        entry = catalogue.plan.config.models[name]
        about = entry.about
        rows.append(
            {
                "name": name,
                "label": catalogue.plan.label(name),
                "family": entry.embed.family,
                "licence": about.license,
                "parameters": about.parameters,
                "dimension": entry.embed.dimension or entry.dimension,
                "image_size": about.image_size,
                "trained_on": about.trained_on,
                "needs": catalogue.why_missing(name) or "",
            }
        )
    numbers = dict.fromkeys(("parameters", "dimension", "image_size"), "Int64")
    return pd.DataFrame(rows).astype(numbers)


class _Given(in_work.Guard):
    """The images of one call. As a guard of ``embed_rows`` it reads them; nothing is noted, for the user watches."""

    reads_files = False

    def __init__(self, images: Iterable[ImageInput]) -> None:
        if isinstance(images, str | os.PathLike | bytes | Image.Image):
            raise LookalikeError("images: is a single image. Put it in a list: embed([image]).")
        self.images = list(images)
        self._names = [_checked(number, image) for number, image in enumerate(self.images)]
        # PIL reads an image's file when it is first used: several threads would get parts of it
        of_file: defaultdict[int, Lock] = defaultdict(Lock)
        self._reading = [of_file[id(getattr(image, "fp", None) or image)] for image in self.images]

    def table(self) -> pa.Table:
        """The images as a SHARD table; their ids are their positions."""
        columns = {
            "image_id": [str(number) for number in range(len(self.images))],
            "root": [""] * len(self.images),
            "path": self._names,
            "bytes": [_size(image) for image in self.images],
            "content_hash": [""] * len(self.images),
        }
        return pa.table(columns, SHARD.schema())

    def read(self, row: Row) -> bytes:
        """The bytes of a file with the image of a row. Raises BadImage."""
        image = self.images[int(row["image_id"])]
        if isinstance(image, bytes):
            return image
        if isinstance(image, np.ndarray):
            return _file_of(Image.fromarray(np.ascontiguousarray(image)))
        if isinstance(image, Image.Image):
            with self._reading[int(row["image_id"])]:
                return _file_of(image)
        path = str(Path(image).expanduser())
        if not archives.split(path) and not Path(path).exists():
            raise images.BadImage("no such file")
        return images.read("", path)


def _checked(number: int, image: object) -> str:
    """An image's name, for messages. Raises LookalikeError for what is not an image."""
    if isinstance(image, str | os.PathLike):
        return os.fsencode(image).decode(errors="replace")  # Parquet takes no undecodable names
    name = f"images[{number}]"
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise LookalikeError(
                f"{name}: is an array of shape {image.shape} and dtype {image.dtype}. Pass (height, width, 3) uint8, "
                "red first; of a single image, a list of one."
            )
    elif not isinstance(image, bytes | Image.Image):
        raise LookalikeError(
            f"{name}: is a {type(image).__name__}. Pass a path, the bytes of an image file, a (height, width, 3) uint8 "
            "array, or a PIL image."
        )
    return name


def _size(image: ImageInput) -> int:
    """How many bytes reading an image takes, for the memory budget; 0 if only reading it shows."""
    if isinstance(image, bytes):
        return len(image)
    if isinstance(image, np.ndarray):
        return image.nbytes
    if isinstance(image, Image.Image):
        return 4 * image.width * image.height
    try:
        return Path(image).stat().st_size
    except (OSError, ValueError):
        return 0


def _file_of(image: Image.Image) -> bytes:
    """A lossless image file, so that whatever a run does to a file's mode and orientation is done here too."""
    if not image.width or not image.height:
        raise images.BadImage("has no pixels")
    try:
        upright = images.upright(image)
        file = BytesIO()
        if upright.mode == "RGB" and not upright.has_transparency_data and "icc_profile" not in upright.info:
            upright.save(file, "BMP")
        elif upright.mode == "CMYK":  # which a color profile may describe
            upright.save(file, "TIFF", exif=Image.Exif(), tiffinfo={})
        else:
            if upright.mode.startswith("I;16"):
                upright = _sixteen_bits(upright, getattr(image, "tag_v2", {}))
            elif upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
                if upright.mode in ("I", "F"):
                    raise images.BadImage("has 32-bit values, and their white level is unknown; convert it to RGB")
                upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
            upright.save(file, "PNG", compress_level=1)
    except (OSError, SyntaxError, ValueError) as error:  # of a file that PIL has opened and not read yet
        raise images.BadImage(f"damaged: {error}") from None
    return file.getvalue()


def _sixteen_bits(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Grey as a PNG has it; a TIFF, with its ``tags``, may have another byte order, fewer bits, and 0 for white."""
    values = np.asarray(image).astype(np.uint16) << (16 - tags.get(images.BITS, (16,))[0])
    grey = Image.fromarray(~values if tags.get(images.PHOTOMETRIC) == 0 else values)
    grey.info = image.info
    return grey


def _export(catalogue: Catalogue, model: str, weights: Weights, threads: int) -> Path | None:
    """The export.json of a model's network in the user's cache, exported now if it is not there.

    None for a model that is not exported, and where that is impossible: the packages or a home directory are missing.
    """
    record = _record(catalogue, model, weights)
    if record and not record.is_file():
        if packages.missing(export.NEEDED):
            return None
        log.info("exporting %s to ONNX, once: %s", model, record.parent)
        store.write_json(weights, record.with_name("weights.json"))
        export.export(
            export.ExportJob(
                weights=str(record.with_name("weights.json")),
                out=str(record),
                key=catalogue.plan.export_key(model),
                code=catalogue.plan.code("export", model=model),
                batch_size=catalogue.plan.runtime(model).batch_size,
                threads=threads,
            )
        )
    return record


def _record(catalogue: Catalogue, model: str, weights: Weights) -> Path | None:
    """Where the user's cache has the export.json of a model's network; None if it cannot have one."""
    key = catalogue.plan.export_key(model)
    if not key or packages.missing(["onnxruntime"]):
        return None
    identity = json.dumps([key, catalogue.plan.code("export", model=model), store.checksum(weights)])
    try:
        folder = cache_folder() / "networks"
    except RuntimeError as error:
        log.info("computing with torch: %s", error)
        return None
    return folder / hashlib.sha256(identity.encode()).hexdigest()[:32] / "export.json"


def _weights(catalogue: Catalogue, model: str) -> Weights:
    """The model's weights; the error for missing ones says how to fetch them ahead of time."""
    try:
        return catalogue.weights(model)
    except LookalikeError as error:
        with suppress(LookalikeError), offline():  # without torch, a network that was exported before is enough
            weights = catalogue.fetched(model)
            record = _record(catalogue, model, weights)
            if record and record.is_file() and store.read_json(record, Export).network:
                return weights
        if model == ENTRY:
            raise
        files = "".join(f" --configfile {path}" for path in catalogue.configfiles)
        command, message = f"lookalike fetch {model}", str(error)
        if command in message:
            raise LookalikeError(message.replace(command, f"{command}{files}")) from None
        raise LookalikeError(f"{message} To fetch the weights ahead of time: {command}{files}") from None


def _whole(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry of a model, from that or from its `embed:` alone."""
    return entry if "embed" in entry else {"embed": entry}


def _paths(config: Configuration) -> list[Path]:
    if config is None:
        return []
    return [Path(path) for path in ([config] if isinstance(config, str | os.PathLike) else config)]
