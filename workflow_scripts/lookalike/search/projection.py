"""The stage `project`: a model's vectors on a plane, for the map of the report.

Nothing is measured on it: a projection to two dimensions keeps some neighborhoods and tears others. How many it keeps
is in the footer.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lookalike.io import identity, store, vectors
from lookalike.io.formats.tables import MAP, NEIGHBORS, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.search import tsne

log = logging.getLogger(__name__)

MOST = 5_000  # images on a map: t-SNE of these takes half a minute on one core
MATCHES = 2  # true matches that come with a query, as many as the explorer shows
FOUND = 5  # neighbors of a query, likewise
COMPONENTS = 50  # of the PCA before t-SNE
PERPLEXITY = 30.0
ITERATIONS = 750
FEWEST = 10  # images that t-SNE is worth it for
FEW = 300  # images up to which all pairs are computed; with more, scikit-learn is faster, with the second of its import
NEAR = 10  # neighbors of each image that are looked for on the map
SEED = 0  # of the choice of images, and of the projection

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ProjectJob:
    """One model's map: its vectors, what it found with an index, and the sample. ``most``: images on the map."""

    embeddings: Sequence[str]
    neighbors: str
    showcase: str
    images: str
    truth: str
    out: str
    most: int = MOST


def project(job: ProjectJob) -> None:
    """Write the MAP table of one model: at most ``most`` images, each with its place on a plane.

    Raises LookalikeError if the vectors are not those that were searched.
    """
    sample_sha256 = identity.check_sample(job.images, job.truth, job.neighbors, job.showcase)
    identity.check_search(job.neighbors, job.showcase)
    footer, shards = store.read_provenance(job.neighbors), identity.hash_shards(job.embeddings)
    if footer["shards_sha256"] != shards:
        raise LookalikeError(
            f"{job.neighbors}: was found in other embeddings than those of {footer['model']} now. "
            f"Search again: --forcerun {job.neighbors}"
        )
    present = store.read_schema(job.images).names
    columns = [name for name in ("image_id", "query", "reference", "showcase") if name in present]
    sample = store.read_columns(job.images, *columns)
    ids = vectors.whole(sample["image_id"])
    rows = vectors.rows_among(job.embeddings, ids)
    embedded = np.zeros(len(ids) + 1, np.bool_)  # the last stands for no image
    for of_shard in rows:
        embedded[of_shard] = True
    embedded[-1] = False
    chosen = _chosen(job, sample, ids, embedded)
    masks = [np.isin(of_shard, chosen) for of_shard in rows]
    order = np.concatenate([of_shard[mask] for of_shard, mask in zip(rows, masks, strict=True)])
    points = vectors.read(job.embeddings, masks)
    first = np.argsort(order)  # the order of the sample, whatever the shards
    order, points = order[first], points[first]
    places, method = plane(points)
    roles = {name: sample[name].to_numpy()[order] for name in ("query", "reference")}
    provenance = {
        "made_by": "lookalike project",
        "model": footer["model"],
        "index": footer["index"],
        "method": method,
        "seed": SEED,
        "kept_neighbors": kept_neighbors(points, places),
        **{name: int(mask.sum()) for name, mask in roles.items()},
        "rejected": int((~embedded[:-1]).sum()),
        identity.SAMPLE: sample_sha256,
        **{name: footer[name] for name in identity.BUILT},
        "versions": store.versions("numpy", "scikit-learn"),
    }
    table = {"image_id": ids.take(pa.array(order)), "x": places[:, 0], "y": places[:, 1]}
    store.write_table(pa.table(table, schema=MAP.schema()), job.out, MAP, provenance)
    log.info("%s of %s images on the map: %s", f"{len(order):,}", f"{len(ids):,}", method)


def _chosen(job: ProjectJob, sample: pa.Table, ids: pa.Array, embedded: NDArray[np.bool_]) -> Ints:
    """Rows of the sample that are on the map, at most ``most``.

    Queries in random order, each with its first true matches and what was found first for it, so that none of them is
    without these; then what was found next; then other references.
    """
    neighbors = pa.concat_tables(store.read_table(path, NEIGHBORS) for path in (job.showcase, job.neighbors))
    neighbors = neighbors.filter(pc.less_equal(neighbors["rank"], FOUND))
    query, found = (_rows(neighbors[name], ids) for name in ("query_id", "reference_id"))
    rank = neighbors["rank"].to_numpy()
    hits = dict(zip(query[rank == 1].tolist(), found[rank == 1].tolist(), strict=True))
    matches: dict[int, list[int]] = {}
    truth = store.read_table(job.truth, TRUTH).sort_by("reference_id")
    for of_query, match in zip(*(_rows(truth[name], ids).tolist() for name in truth.column_names), strict=True):
        matches.setdefault(of_query, []).append(match)
    draw = np.random.default_rng(SEED)
    outside = sample["showcase"].to_numpy() if "showcase" in sample.column_names else np.zeros(len(ids), np.bool_)
    queries = np.flatnonzero(sample["query"].to_numpy() & ~outside)
    all_queries = [*np.flatnonzero(outside).tolist(), *draw.permutation(queries).tolist()]
    together = ([row, *matches.get(row, [])[:MATCHES], hits.get(row, -1)] for row in all_queries if embedded[row])
    references = np.flatnonzero(sample["reference"].to_numpy() & embedded[:-1])
    some = draw.choice(references, min(job.most, len(references)), replace=False)
    return _first(
        chain(together, ([row] for row in found[rank > 1].tolist()), ([row] for row in some)), embedded, job.most
    )


def _first(groups: Iterable[Sequence[int]], embedded: NDArray[np.bool_], most: int) -> Ints:
    """The embedded rows of the first groups that fit, each row once, increasing."""
    chosen: set[int] = set()
    for group in groups:
        new = {row for row in group if embedded[row]} - chosen
        if len(chosen) + len(new) > most:
            break
        chosen |= new
    return np.array(sorted(chosen), np.int64)


def _rows(column: pa.ChunkedArray, ids: pa.Array) -> Ints:
    """The rows of ids; -1 for those that the sample lacks."""
    return np.asarray(pc.fill_null(pc.index_in(vectors.whole(column), value_set=ids), -1).to_numpy(), np.int64)


def plane(points: Floats) -> tuple[Floats, str]:
    """Places of vectors (n, d) on a plane, (n, 2) between -1 and 1, and how they were found.

    One thread, since the sums of several differ in their last bits, which t-SNE makes large.
    """
    from threadpoolctl import threadpool_limits

    count, dimension = points.shape
    centered = points - points.mean(axis=0, keepdims=True) if count else points
    if count < 2 or not np.any(np.abs(centered) > 1e-6):
        return np.zeros((count, 2), np.float32), "all vectors are equal"
    components = min(COMPONENTS, count, dimension)
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    method = f"PCA to {components} dimensions, then t-SNE with perplexity {perplexity:.3g}"
    with threadpool_limits(1):
        reduced = _reduced(centered, components)
        if count < FEWEST or components < 2:
            places, method = np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - components)))), "PCA to 2 dimensions"
        elif count <= FEW:
            places = tsne.embed(reduced, perplexity, ITERATIONS)
        else:
            from sklearn.manifold import TSNE

            approximate = TSNE(init="pca", perplexity=perplexity, max_iter=ITERATIONS, random_state=SEED)
            places = approximate.fit_transform(reduced.astype(np.float32))
    places = places - (places.max(axis=0) + places.min(axis=0)) / 2
    return np.asarray(places / max(np.abs(places).max(), 1e-12), np.float32), method


def _reduced(centered: Floats, components: int) -> NDArray[np.float64]:
    """The first principal components of centered vectors; the largest entry of each is positive."""
    if len(centered) <= FEW:
        left, singular, _ = np.linalg.svd(centered.astype(np.float64), full_matrices=False)
        found = left[:, :components] * singular[:components]
    else:
        from sklearn.decomposition import PCA

        solver = "randomized" if components < min(centered.shape) // 2 else "full"
        found = PCA(components, svd_solver=solver, random_state=SEED).fit_transform(centered).astype(np.float64)
    largest = found[np.abs(found).argmax(axis=0), np.arange(components)]
    return np.asarray(found * np.where(largest < 0, -1, 1))


def kept_neighbors(points: Floats, places: Floats) -> float | None:
    """The share of each image's NEAR nearest images that are among its NEAR nearest on the plane; None for too few."""
    if len(points) <= NEAR + 1:
        return None
    pairs = zip(_nearest(points), _nearest(places), strict=True)
    return float(np.mean([len(np.intersect1d(*pair)) for pair in pairs]) / NEAR)


def _nearest(points: Floats) -> Iterator[Ints]:
    """The NEAR nearest rows of each row, without itself."""
    squares = np.einsum("ij,ij->i", points, points)
    for start in range(0, len(points), 512):
        block = slice(start, start + 512)
        distances = squares[None, :] - 2 * points[block] @ points.T
        distances[np.arange(len(distances)), start + np.arange(len(distances))] = np.inf
        yield from np.argpartition(distances, NEAR, axis=1)[:, :NEAR]
