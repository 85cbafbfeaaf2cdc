"""Indexes as the configuration describes them, and the mistakes that can be found without vectors."""

import re
from collections.abc import Iterator
from difflib import get_close_matches

from pydantic import Field

from lookalike.config import factories
from lookalike.config.entry import Entry
from lookalike.job.errors import did_you_mean

# Search parameters, and what a factory string must contain for them to apply.
SEARCH = {
    "nprobe": "IVF",
    "max_codes": "IVF",
    "efSearch": "HNSW",
    "quantizer_efSearch": "HNSW",
    "ht": "PQ",
    "k_factor_rf": "RFlat|Refine",
}

# The remedy if a key is not in the user's own file.
MERGED = (
    " Entries of a --configfile are merged over the catalogue's: if '{key}' comes from the catalogue's entry of this "
    "name, give yours another name."
)


class Train(Entry):
    """Vectors that an index is trained on: training images, or references if the data set lacks them."""

    # FAISS uses 256 per centroid, so enough for 390
    sample: int = Field(100_000, ge=1, description="vectors to train on; all if there are fewer")
    seed: int = Field(0, ge=0, description="seed of the random sample")


class Normalise(Entry):
    """Score normalisation (SSCD) for data sets with training images: what is subtracted from a query's scores.

    beta times the mean of the query's inner products with its nearest training images, from rank first to rank last.
    """

    beta: float = Field(1.0, description="factor of the mean; 0 subtracts nothing")
    first: int = Field(1, ge=1, description="rank of the first training image in the mean; the nearest is 1")
    last: int = Field(3, ge=1, description="rank of the last training image in the mean")


class IndexRuntime(Entry):
    """Resources to build and search an index: they change no result, except for the rounding of FAISS on a GPU."""

    gpu: int = Field(0, ge=0, le=1, description="1 to search on a GPU, and train clusters on it")
    # 1: with a few thousand references most of a job is its startup, so it is better to run several at a time
    threads: int = Field(1, ge=1, description="CPU cores to build and search with")
    mem_mb: int = Field(2000, ge=1, description="memory to request from a cluster, in MB; doubled for a retry")
    minutes: int = Field(30, ge=1, description="run time to request from a cluster, in minutes")


class Index(Entry):
    """An index: a FAISS factory string, or a scan of the embedding shards."""

    factory: str | None = Field(None, min_length=1, description="FAISS factory string; Flat is exact")
    scan: bool = Field(False, description="search the embedding shards directly instead of building an index")
    search: dict[str, float] = Field(
        {},
        description="FAISS search parameters, such as nprobe and efSearch",
        json_schema_extra={"propertyNames": {"enum": [*SEARCH]}},
    )
    train: Train = Train()
    normalise: Normalise = Normalise()
    runtime: IndexRuntime = IndexRuntime()

    def mistakes(self) -> Iterator[str]:
        """One line per mistake: the place below the entry, the fact, the remedy."""
        if self.scan and self.factory:
            mistake = f".factory: a scan searches the shards without a factory ('{self.factory}'). Remove one of them."
            yield mistake + MERGED.format(key="scan")
        if not self.scan and not self.factory:
            yield ": has neither factory nor scan. Add one, such as `factory: Flat` or `scan: true`."
        yield from _factory_mistakes(self.factory or "")
        yield from self._search_mistakes()
        if self.normalise.first > self.normalise.last:
            yield f".normalise: first ({self.normalise.first}) is after last ({self.normalise.last}). Swap them."

    def _search_mistakes(self) -> Iterator[str]:
        allowed = [name for name, needs in SEARCH.items() if re.search(needs, self.factory or "")]
        for name, value in self.search.items():
            place = f".search.{name}"
            if name not in allowed:
                lack = "search parameters. Remove `search`."
                if allowed:
                    lack = f"such search parameter.{did_you_mean(name, allowed)}"
                of = f"factory '{self.factory}'" if self.factory else "a scan"
                merged = "" if get_close_matches(name, allowed) else MERGED.format(key=name)
                yield f"{place}: {of} has no {lack}{merged}"
            elif value <= 0:
                yield f"{place}: should be above 0, found {value:g}."
            elif name != "k_factor_rf" and value != int(value):
                yield f"{place}: should be a whole number, found {value:g}."


def _factory_mistakes(factory: str) -> Iterator[str]:
    if factory and (why := factories.why_rejected(factory)) is not None:
        mistakes = list(factories.likely_mistakes(factory)) or [
            f"FAISS cannot build '{factory}': {why}. See docs/indexes.md for factories that work."
        ]
        yield from (f".factory: {mistake}" for mistake in mistakes)
