"""Images that a run makes: one zip archive per shard, and a manifest of the whole data set.

A kind that makes its images has ``make_images(entry, sources, album, guard) -> manifest``.
"""

import importlib
import logging
import re
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import TypeAdapter

from lookalike.config.datasets import Dataset
from lookalike.io import content_hashes, in_work, made_images, store
from lookalike.io.formats.tables import IMAGES, MANIFEST
from lookalike.job.errors import LookalikeError, WriteError, writing
from lookalike.sample.shard_number import shard_of

log = logging.getLogger(__name__)

DATE = (1980, 1, 1, 0, 0, 0)  # of every member, the earliest in zip: equal images must give equal bytes


@dataclass(frozen=True)
class MakeImagesJob:
    """One data set whose images are made: its files and its entry.

    ``key`` is ``plan.Plan.images_key``. ``sources`` is the sample of the data set that is copied, None for a kind that
    copies none, and ``archives`` has those of its images that a run made. ``archives_out`` has one archive for each
    shard. ``notes`` is a file for which images are in work (``io.in_work``), and ``image_seconds`` limits decoding one.
    """

    dataset: str
    key: str
    sources: str | Path | None
    archives_out: Sequence[str | Path]
    manifest_out: str | Path
    notes: str | Path
    image_seconds: float = 300
    archives: Sequence[str | Path] = ()

    @cached_property
    def entry(self) -> Any:
        """The data set's entry in the configuration, parsed from ``key``."""
        return TypeAdapter(Dataset).validate_json(self.key)


def make_images(job: MakeImagesJob) -> None:
    """Make a data set's images, pack them into its archives, and list them in its manifest."""
    name, entry, sources = job.dataset, job.entry, job.sources
    made_images.locate(job.archives)
    kind = importlib.import_module(f"lookalike.sample.{entry.kind}")
    table_of_sources = store.read_table(sources, IMAGES) if sources else None
    left_out = store.read_provenance(sources).get("left_out", []) if sources else []
    identity = store.identity(sources) if sources else job.key
    with in_work.guarding(job.notes, identity, job.image_seconds) as guard, Album(job.archives_out) as album:
        try:
            table = kind.make_images(entry, table_of_sources, album, guard)
        except WriteError:
            raise
        except LookalikeError as error:  # a kind knows its keys, but not its name
            raise LookalikeError(f"datasets.{name}.{error}") from None
        if not table.num_rows:
            raise LookalikeError(f"datasets.{name}: no images could be made. The log says why.")
        album.pack()
    provenance = {"made_by": "lookalike make_images", "key": job.key, "left_out": left_out}
    store.write_table(table, job.manifest_out, MANIFEST, provenance)
    _remove_former(job.archives_out)


def _remove_former(archives: Sequence[str | Path]) -> None:
    """Delete the archives of shards that the data set no longer has: Snakemake knows nothing of them any more."""
    first, current = Path(archives[0]), {Path(archive).name for archive in archives}
    part = first.stem.rpartition("-")[0]
    for path in first.parent.glob("*.zip"):
        if re.fullmatch(rf"{re.escape(part)}-\d+", path.stem) and path.name not in current:
            log.info("%s: left over from a larger number of shards, deleted", path)
            path.unlink()


class Album:
    """Takes images one by one and packs each into the archive of its shard, in the order of their ids.

    Until then they are in an unnamed temporary file: memory use stays low, and a killed run leaves nothing behind.
    """

    def __init__(self, archives: Sequence[str | Path]) -> None:
        self.archives = [Path(archive) for archive in archives]
        self.root = self.archives[0].parent
        self._spool: BinaryIO | None = None
        self._places: list[dict[str, tuple[int, int]]] = [{} for _ in archives]  # by archive and id: start, bytes

    def __enter__(self) -> "Album":
        return self

    def __exit__(self, *_: object) -> None:
        if self._spool:
            with suppress(OSError):  # what it could not write, it tries again
                self._spool.close()

    def add(self, image_id: str, data: bytes) -> dict[str, Any]:
        """Take the image with the file contents ``data``; returns the cells of its row that follow from them."""
        number = shard_of(image_id, len(self.archives))
        with writing(self.root / image_id):
            if self._spool is None:
                self.root.mkdir(parents=True, exist_ok=True)
                self._spool = tempfile.TemporaryFile(dir=self.root)  # noqa: SIM115 (closed on exit)
            self._places[number][image_id] = (self._spool.tell(), len(data))
            self._spool.write(data)
        sha256 = content_hashes.of_made(data)
        return {
            "image_id": image_id,
            "root": made_images.root_of(self.root),
            "path": f"{self.archives[number].name}!{image_id}",
            "bytes": len(data),
            "content_hash": sha256,
            "sha256": sha256.removeprefix(content_hashes.MADE),
        }

    def pack(self) -> None:
        """Write the archives, each whole or not at all. A shard without images has an empty one."""
        for archive, places in zip(self.archives, self._places, strict=True):
            with store.atomic(archive) as temporary, zipfile.ZipFile(temporary, "w") as packed:
                for image_id, (start, size) in sorted(places.items()):
                    member = zipfile.ZipInfo(image_id, DATE)
                    member.create_system, member.external_attr = 3, 0o644 << 16  # on every system as on Unix
                    assert self._spool is not None
                    self._spool.seek(start)
                    packed.writestr(member, self._spool.read(size))
