"""Metrics that judge as people do: files of one image are one answer, and another shot of a scene is not a mistake.

The strict metrics count exactly what the truth lists. Those with ``_scene`` in their name follow the junk protocol of
image retrieval (Philbin et al., "Object retrieval with large vocabularies and fast spatial matching", CVPR 2007): an
answer that is neither right nor wrong is taken out of the ranking before it is judged.

- Files that show the same image are one answer, at the rank of the first of them; it is right if any is.
- Junk: a wrong reference that shows the scene of a true match, and one that shows the same image as the query. In a
  labelled collection the latter is junk also where it has the query's class: it says nothing about the class.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import identity, relevance, store
from lookalike.io.formats.audit import NOT_AUDITED, SAME_IMAGE, SAME_SCENE, Audit, AuditPair
from lookalike.io.formats.tables import AUDIT, NEAR_DUPLICATES
from lookalike.job.errors import LookalikeError
from lookalike.metrics.joining import Bools, Floats, Ints, Joined, join
from lookalike.metrics.pooled import Groups, Predictions
from lookalike.metrics.ranking import Ranking

SCENE = "_scene"
ACCURACY = "accuracy_at_"  # what the audit of misses covers: it follows a ranking to its third wrong answer
MOST_PAIRS = 12  # of each kind, for the report


@dataclass(frozen=True)
class Scenes:
    """Which images of a sample show the same image, and which answers to a query its scene.

    same: (images,) int64, the row of the first reference that shows the same image; without one, the image's own row
    scene: (images,) int64, a code of the data set's ``scene`` column, -1 where it is not known
    audit: the AUDIT table of one search
    pooled_from: score from which on it covers all wrong candidates
    """

    same: Ints
    scene: Ints
    audit: pa.Table
    pooled_from: float = -np.inf

    @property
    def is_complete(self) -> bool:
        """Whether the audit covers all misses."""
        return not pc.any(pc.equal(self.audit["verdict"], NOT_AUDITED)).as_py()


def read_scenes(
    audit: str | Path,
    near_duplicates: str | Path | None,
    neighbors: str | Path,
    candidates: str | Path,
    images: pa.Table,
) -> Scenes:
    """Read what the answers of one search are judged by; ``near_duplicates`` is None where the data set leaves it out.

    Raises LookalikeError for an audit of another search, and for near-duplicates of other images.
    """
    footer = store.read_provenance(audit)
    for name, path in (("neighbors", neighbors), ("candidates", candidates)):
        if footer.get(name) != store.identity(path):
            raise LookalikeError(f"{audit}: was made from another version of {path}. Audit again: --forcerun {audit}")
    groups = NEAR_DUPLICATES.schema().empty_table()
    if near_duplicates:
        groups = store.read_table(near_duplicates, NEAR_DUPLICATES)
        has_role = pc.or_(pc.or_(images["reference"], images["query"]), images["training"])  # not only in the showcase
        compared = identity.hash_images(images.filter(has_role))
        if store.read_provenance(near_duplicates).get("images_sha256") != compared:
            raise LookalikeError(
                f"{near_duplicates}: was made from other images than those of the sample. Make it again: "
                f"--forcerun {near_duplicates}"
            )
    lowest = footer.get("pooled_from")
    return Scenes(
        _same(images, groups),
        _codes(images),
        store.read_table(audit, AUDIT),
        -np.inf if lowest is None else float(lowest),
    )


def _same(images: pa.Table, groups: pa.Table) -> Ints:
    same = np.arange(images.num_rows)
    rows = pc.index_in(groups["image_id"], value_set=images["image_id"].combine_chunks()).to_numpy()
    code = groups["group"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    is_reference = images["reference"].to_numpy()[rows]
    first = np.full(code.max(initial=-1) + 1, images.num_rows, np.int64)
    np.minimum.at(first, code[is_reference], rows[is_reference])
    found = first[code] < images.num_rows
    same[rows[found]] = first[code][found]
    return same


def _codes(images: pa.Table) -> Ints:
    if "scene" not in images.column_names:
        return np.full(images.num_rows, -1)
    codes = images["scene"].combine_chunks().dictionary_encode().indices
    return np.asarray(pc.fill_null(codes, -1).to_numpy(zero_copy_only=False), np.int64)


@dataclass(frozen=True)
class _Judged:
    """Predictions, parallel to those of ``joined``: what they are besides listed as a match.

    answer: (p,) int64, the reference that represents all files of its image
    right: (p,) bool, the image of a true match
    same_image: (p,) bool, not right, but the same image as the query
    same_scene: (p,) bool, not right, but the scene of a true match
    true_pairs: sorted codes query * images + answer of the listed true pairs, each once
    """

    joined: Joined
    answer: Ints
    right: Bools
    same_image: Bools
    same_scene: Bools
    true_pairs: Ints


def _judge(pairs: pa.Table, truth: pa.Table, images: pa.Table, scenes: Scenes) -> _Judged:
    joined = join(pairs, truth, images, "neighbors")
    count = images.num_rows
    answer = scenes.same[joined.reference]
    true_pairs = np.unique(joined.true_query * count + scenes.same[joined.true_reference])
    code = joined.query * count + answer
    right = np.isin(code, true_pairs)
    if relevance.is_labelled(images):
        right = _of_class(joined, answer, scenes, relevance.classes(images))
    ids = images["image_id"].combine_chunks()
    confirmed = scenes.audit.filter(pc.equal(scenes.audit["verdict"], SAME_SCENE))
    of_query, of_wrong = (
        pc.index_in(confirmed[name], value_set=ids).to_numpy().astype(np.int64) for name in ("query_id", "reference_id")
    )
    # where a true match has no scene, that of its query
    scene = scenes.scene[joined.true_reference]
    scene = np.where(scene < 0, scenes.scene[joined.true_query], scene)
    wanted = (joined.true_query * (count + 1) + scene)[scene >= 0]
    of_answer = scenes.scene[joined.reference]
    in_scene = (of_answer >= 0) & np.isin(joined.query * (count + 1) + of_answer, wanted)
    same_image = ~right & (answer == scenes.same[joined.query])
    same_scene = ~right & ~same_image & (in_scene | np.isin(code, of_query * count + scenes.same[of_wrong]))
    return _Judged(joined, answer, right, same_image, same_scene, true_pairs)


def _of_class(joined: Joined, answer: Ints, scenes: Scenes, classes: Ints) -> Bools:
    """(p,) bool: whether any file of an answer's image has the class of the query, but is not the query's image."""
    known = np.flatnonzero(classes >= 0)
    count = int(classes.max(initial=0)) + 1
    members = scenes.same[known] * count + classes[known]
    wanted = answer * count + classes[joined.query]
    return np.asarray(
        np.isin(wanted, members) & (classes[joined.query] >= 0) & (answer != scenes.same[joined.query]), dtype=np.bool_
    )


def outcomes_of_scenes(
    neighbors: pa.Table,
    truth: pa.Table,
    images: pa.Table,
    scenes: Scenes,
    *,
    strict: Mapping[str, Floats | None],
    ranking: Ranking,
    searched: int,
) -> dict[str, Floats | None]:
    """The accuracies among ``strict`` with junk taken out, by name.

    None if the audit is not complete, or if junk takes so many of the kept neighbors of a query that fewer answers are
    left than the accuracy looks at, none of them right.

    strict, ranking: what the truth alone says (``ranking.at_k``). In a labelled collection, a query whose class has no
    other image than its own keeps the strict outcome, as nothing is left to be found. R-precision and mAP@R are among
    them if the neighbors can hold every class; None if those of some query are too few without junk.
    """
    judged = _judge(neighbors, truth, images, scenes)
    order = _ordered(judged, images, drop=_truncated(judged, images, searched, ranking.kept))
    query = judged.joined.query[order]
    starts = np.flatnonzero(np.diff(query, prepend=-1))
    place = 1 + np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    first = np.full(images.num_rows, np.iinfo(np.int64).max)
    right = judged.right[order]
    np.minimum.at(first, query[right], place[right])
    rows = np.bincount(judged.joined.query, minlength=images.num_rows)
    cut_off = (rows >= ranking.kept) & (searched - images["reference"].to_numpy() > rows)
    answers = _ordered(judged, images, drop=np.zeros(len(judged.right), np.bool_))
    left = np.bincount(judged.joined.query[answers], minlength=images.num_rows)
    outcomes: dict[str, Floats | None] = {}
    for name, values in strict.items():
        cutoff = name.removeprefix(ACCURACY)
        if cutoff != name:
            hits = (first[ranking.counted] <= int(cutoff)).astype(np.float64)
            unknown = (cut_off & (left < int(cutoff)) & (first > int(cutoff)))[ranking.counted].any()
            known = values is not None and scenes.is_complete and not unknown
            outcomes[f"{name}{SCENE}"] = hits if known else None
    if not relevance.is_labelled(images):
        return outcomes
    sought = _sought(images, scenes)
    if ranking.matches.max(initial=0) < ranking.kept:
        short = (cut_off & (np.bincount(query, minlength=images.num_rows) < sought))[ranking.counted]
        within = right & (place <= sought[query])
        for name, credit in (("map_at_r", _precision(starts, right, place)), ("r_precision", np.ones(len(query)))):
            if name in strict:
                total = np.bincount(query[within], credit[within], minlength=images.num_rows) / np.maximum(sought, 1)
                outcomes[f"{name}{SCENE}"] = None if strict[name] is None or short.any() else total[ranking.counted]
    alone = sought[ranking.counted] == 0
    for name, values in outcomes.items():
        as_listed = strict[name.removesuffix(SCENE)]
        if values is not None and as_listed is not None:
            outcomes[name] = np.where(alone, as_listed, values)
    return outcomes


def _precision(starts: Ints, right: Bools, place: Ints) -> Floats:
    """(p,) float64: of the answers of a query up to this one, the share that is right; ``starts`` of each query."""
    hits = np.cumsum(right)
    before: Ints = np.repeat((hits - right)[starts], np.diff(starts, append=len(right)))
    return np.asarray((hits - before) / place, dtype=np.float64)


def _sought(images: pa.Table, scenes: Scenes) -> Ints:
    """(images,) int64: how many images of its class, other than its own, the references show; files of one are one."""
    classes, reference = relevance.classes(images), images["reference"].to_numpy()
    listed = np.unique(np.stack([classes[reference], scenes.same[reference]]), axis=1)
    kinds = np.bincount(listed[0][listed[0] >= 0], minlength=int(classes.max(initial=0)) + 1)
    own = np.isin(classes * images.num_rows + scenes.same, listed[0] * images.num_rows + listed[1])
    return np.where(classes >= 0, kinds[classes] - own, 0).astype(np.int64)


def predictions_of_scenes(
    candidates: pa.Table, truth: pa.Table, images: pa.Table, groups: Groups, scenes: Scenes
) -> Predictions | None:
    """The pooled list of answers without junk; None if the audit ends before the last right one."""
    judged = _judge(candidates, truth, images, scenes)
    joined = judged.joined
    order = _ordered(judged, images, drop=np.zeros(len(joined.query), np.bool_))
    score = joined.score.astype(np.float64)
    last = score[order][judged.right[order]].min(initial=np.inf)
    if not scenes.is_complete or last < scenes.pooled_from:
        return None
    group = groups.code[joined.query]
    order = order[np.lexsort((group[order], judged.right[order], -score[order]))]
    matches = np.bincount(groups.code[judged.true_pairs // images.num_rows], minlength=len(groups.names))
    return Predictions(score[order], judged.right[order], group[order], matches.astype(np.int64))


def _truncated(judged: _Judged, images: pa.Table, searched: int, kept: int) -> Bools:
    """(p,) bool: true matches that may rank lower, since wrong references with the same score were cut off."""
    query, score = judged.joined.query, judged.joined.score
    rows = np.bincount(query, minlength=images.num_rows)
    candidates = searched - images["reference"].to_numpy().astype(np.int64)
    lowest = np.full(images.num_rows, np.inf)
    np.minimum.at(lowest, query, score)
    return np.asarray(((rows >= kept) & (candidates > rows))[query] & (score == lowest[query]) & judged.right)


def _ordered(judged: _Judged, images: pa.Table, drop: Bools) -> Ints:
    """Rows of the predictions, one for each query and answer, none for junk and ``drop``; by query, best first.

    At equal scores wrong answers rank first.
    """
    query = judged.joined.query
    order = np.lexsort((judged.right, -judged.joined.score, query))
    order = order[~(judged.same_image | judged.same_scene | drop)[order]]
    _, first = np.unique((query * images.num_rows + judged.answer)[order], return_index=True)
    return np.asarray(order[np.sort(first)], dtype=np.int64)


def count_misses(neighbors: pa.Table, truth: pa.Table, images: pa.Table, scenes: Scenes, ranking: Ranking) -> Audit:
    """The misses of a strict ``ranking``, by what their first neighbor shows."""
    judged = _judge(neighbors, truth, images, scenes)
    joined = judged.joined
    order = np.lexsort((joined.right, -joined.score, joined.query))
    queries, first = np.unique(joined.query[order], return_index=True)
    first_row = np.full(images.num_rows, -1)
    first_row[queries] = order[first]
    missed = ranking.counted[~ranking.correct_at(1)]
    row = first_row[missed]
    found = row >= 0
    ids = images["image_id"].combine_chunks()
    unaudited = scenes.audit.filter(pc.equal(scenes.audit["verdict"], NOT_AUDITED))["query_id"]
    left = np.isin(missed, pc.index_in(unaudited, value_set=ids).to_numpy())
    same_image = found & ((judged.right & ~joined.right) | judged.same_image)[row]
    same_scene = found & judged.same_scene[row]
    left &= ~same_image & ~same_scene
    names = {kind: row[chosen] for kind, chosen in ((SAME_IMAGE, same_image), (SAME_SCENE, same_scene))}
    return Audit(
        misses=len(missed),
        same_image=int(same_image.sum()),
        same_scene=int(same_scene.sum()),
        other=int((~same_image & ~same_scene & ~left).sum()),
        not_audited=int(left.sum()),
        pairs=[pair for kind, rows in names.items() for pair in _pairs(kind, rows, judged, ids, scenes.audit)],
    )


def _pairs(kind: str, rows: Ints, judged: _Judged, ids: pa.Array, audit: pa.Table) -> list[AuditPair]:
    """Some misses as pairs, by a hash of the query's id: a selection that is the same for every model."""
    joined = judged.joined
    named = [(str(ids[joined.query[row]]), str(ids[joined.reference[row]]), int(joined.query[row])) for row in rows]
    chosen = sorted(named, key=lambda names: hashlib.sha256(names[0].encode()).digest())[:MOST_PAIRS]
    queries = pa.array([query for query, _, _ in chosen], pa.string())
    audited = audit.filter(pc.is_in(audit["query_id"], value_set=queries)).to_pylist()
    verdicts = {(row["query_id"], row["reference_id"]): row for row in audited}
    pairs = []
    for query, reference, query_row in chosen:
        verdict = verdicts.get((query, reference), {})
        match = verdict.get("match_id") or str(ids[min(joined.true_reference[joined.true_query == query_row])])
        by_features = kind == SAME_SCENE and verdict.get("inliers") is not None
        pairs.append(
            AuditPair(
                query=query,
                match=match,
                reference=reference,
                verdict=kind,
                inliers=verdict["inliers"] if by_features else None,
                mirrored=bool(by_features and verdict["mirrored"]),
            )
        )
    return pairs
