"""Indexes, as the configuration describes them, and what is wrong with one as far as can be said without vectors."""

import re
from collections.abc import Iterator
from difflib import get_close_matches

from pydantic import Field

from lookalike.config import factories
from lookalike.config.entry import Entry
from lookalike.job.errors import did_you_mean

# Search parameters, and what a factory string must have for them to mean something.
SEARCH = {
    "nprobe": "IVF",
    "max_codes": "IVF",
    "efSearch": "HNSW",
    "quantizer_efSearch": "HNSW",
    "ht": "PQ",
    "k_factor_rf": "RFlat|Refine",
}

# The remedy where a key is in no file that the user wrote.
MERGED = (
    " Entries of a --configfile are merged over the catalogue's: if '{key}' comes from the catalogue's entry of this "
    "name, give yours another name."
)


class Train(Entry):
    """What an index learns from: training pictures, or the references where the data set has none."""

    # FAISS uses 256 a centroid, so enough for 390
    sample: int = Field(100_000, ge=1, description="vectors to train on; all where there are fewer")
    seed: int = Field(0, ge=0, description="of the draw; another seed, other vectors")


class Normalise(Entry):
    """Score normalisation, where the data set has training pictures: what is taken off a query's scores.

    beta times the mean of its inner products with its nearest training pictures, from the first to the last (SSCD).
    """

    beta: float = 1.0
    first: int = Field(1, ge=1, description="the nearest training picture is the first")
    last: int = Field(3, ge=1, description="the last training picture of the mean")


class IndexRuntime(Entry):
    """How an index is built and searched: nothing here changes what is found, but for ties."""

    gpu: int = Field(0, ge=0, le=1, description="1: on a GPU, where FAISS can use one")
    # one: on a few thousand references a job is mostly its own start, and several are done at a time
    threads: int = Field(1, ge=1, description="CPU cores to build and to search with")
    mem_mb: int = Field(2000, ge=1, description="memory to ask a cluster for, in MB; doubled by a retry")
    minutes: int = Field(30, ge=1, description="run time to ask a cluster for")


class Index(Entry):
    """An index: a FAISS factory, or a scan: no more than the list of shards that are searched."""

    factory: str | None = Field(None, min_length=1, description="a FAISS factory string; Flat is exact")
    scan: bool = Field(False, description="build nothing, search the shards themselves")
    search: dict[str, float] = Field({}, description="FAISS search parameters, such as nprobe and efSearch")
    train: Train = Train()
    normalise: Normalise = Normalise()
    runtime: IndexRuntime = IndexRuntime()

    def mistakes(self) -> Iterator[str]:
        """What is wrong: the place below the entry, the fact, the remedy."""
        if self.scan and self.factory:
            fact = f".factory: a scan index searches the shards and has no factory ('{self.factory}'). Drop one."
            yield fact + MERGED.format(key="scan")
        if not self.scan and not self.factory:
            yield ": names no index. Add a factory, such as `factory: Flat`, or `scan: true`."
        yield from _factory_mistakes(self.factory or "")
        yield from self._search_mistakes()
        if self.normalise.first > self.normalise.last:
            yield f".normalise: first is {self.normalise.first} and last {self.normalise.last}. Turn them round."

    def _search_mistakes(self) -> Iterator[str]:
        allowed = [name for name, needs in SEARCH.items() if re.search(needs, self.factory or "")]
        for name, value in self.search.items():
            place = f".search.{name}"
            if name not in allowed:
                suggestion = did_you_mean(name, allowed) if allowed else " It has none: leave `search` out."
                of = f"factory '{self.factory}'" if self.factory else "a scan index"
                merged = "" if get_close_matches(name, allowed) else MERGED.format(key=name)
                yield f"{place}: {of} has no such search parameter.{suggestion}{merged}"
            elif value <= 0:
                yield f"{place}: should be above 0, found {value:g}."
            elif name != "k_factor_rf" and value != int(value):
                yield f"{place}: should be a whole number, found {value:g}."


def _factory_mistakes(factory: str) -> Iterator[str]:
    if factory and (why := factories.refused(factory)) is not None:
        found = list(factories.slips(factory)) or [
            f"FAISS cannot make '{factory}': {why}. docs/indexes.md shows factories that work."
        ]
        yield from (f".factory: {slip}" for slip in found)
