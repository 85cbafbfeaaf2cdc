"""What a search for duplicates prints and writes: JSON, CSV, the summary for people, and the HTML page."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lookalike.cli.duplicate_search import page
from lookalike.cli.duplicate_search.groups import BYTES, Group, Member
from lookalike.cli.duplicate_search.search import CALIBRATED, SHIPPED, Request, Result
from lookalike.io import store

KEEP = ("group", "image", "keep", "kind", "by", "score", "why", "width", "height", "bytes", "format", "taken")
PAIRS = ("image", "match", "kind", "by", "score")


def counts(result: Result) -> dict[str, int]:
    """How many images there are: ``found`` is the sum of all others but ``groups``, which equals ``kept``."""
    members = [member for group in result.groups for member in group.members[1:]]
    identical = sum((member.by == BYTES) for member in members)
    return {
        "found": result.collection.found,
        "unreadable": len(result.collection.unreadable),
        "single": len(result.collection.files) - len(members) - len(result.groups),
        "kept": len(result.groups),
        "identical": identical,
        "near": len(members) - identical,
        "groups": len(result.groups),
    }


def as_json(result: Result, request: Request) -> dict[str, Any]:
    """The result as plain data: groups of one folder, or pairs of two."""
    calibration = result.calibration if result.source == CALIBRATED else None
    data: dict[str, Any] = {
        "folder": str(request.images),
        "model": result.model,
        "threshold": result.cosine,
        "threshold_from": result.source,
        "precision": request.precision,
        "calibration": calibration and {**vars(calibration), "threshold": result.cosine},
        "unreadable": [{"image": path, "reason": why} for path, why in sorted(result.collection.unreadable.items())],
        "left_out": result.collection.left_out,
    }
    if request.against:
        found = {"found": result.collection.found, "unreadable": len(result.collection.unreadable)}
        pairs = [dict(zip(PAIRS, row, strict=True)) for row in _pair_rows(result)]
        return {**data, "against": str(request.against), "counts": {**found, "pairs": len(pairs)}, "pairs": pairs}
    return {**data, "counts": counts(result), "groups": [_group(group) for group in result.groups]}


def _group(group: Group) -> dict[str, Any]:
    return {
        "kind": group.kind,
        "images": [member.file.path for member in group.members],
        "keep": group.keep.path,
        "why": group.why,
        "by": [member.by for member in group.members],
        "scores": [round(member.score, 4) for member in group.members],
    }


def write(result: Result, request: Request, out: Path) -> list[Path]:
    """Write the page and keep.csv, or pairs.csv, into a folder; return their paths, the one to open first."""
    if request.against:
        return [_write_csv(out / "pairs.csv", PAIRS, _pair_rows(result))]
    rows = [
        keep_row(number, group, member) for number, group in enumerate(result.groups, 1) for member in group.members
    ]
    kept = _write_csv(out / "keep.csv", KEEP, rows)
    index = out / "index.html"
    with store.atomic(index) as temporary:
        temporary.write_text(
            page.render(result, {"lines": summary(result, request), "rest": not_compared(result)}, rows, KEEP),
            encoding="utf-8",
        )
    return [index, kept]


def keep_row(number: int, group: Group, member: Member) -> tuple[Any, ...]:
    """A row of keep.csv."""
    file = member.file
    is_kept = member is group.members[0]
    kind = "kept" if is_kept else "identical" if (member.by == BYTES) else "near"
    why = group.why if is_kept else ""
    about = file.width, file.height, file.bytes, file.format, file.taken
    return (number, file.path, "yes" if is_kept else "no", kind, member.by, round(member.score, 4), why, *about)


def _pair_rows(result: Result) -> list[tuple[Any, ...]]:
    return [
        (match.image.path, match.match.path, "identical" if match.by == BYTES else "near", match.by, match.score)
        for match in result.matches
    ]


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Path:
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    with store.atomic(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def summary(result: Result, request: Request) -> list[str]:
    """Lines for people: what was found, by which model and threshold, and how far to trust it."""
    collection, number = result.collection, counts(result)
    places = f"{request.images} and {request.against}" if request.against else str(request.images)
    lines = [
        f"images: {number['found']:,} found in {places} = {len(collection.files):,} read + "
        f"{number['unreadable']:,} unreadable"
    ]
    threshold = "only pixels decide" if result.cosine is None else f"threshold {result.cosine:.4g}"
    lines.append(f"model: {result.model}, {threshold} ({_source(result, request)})")
    if result.source == CALIBRATED:
        lines.append(_calibration(result))
    if request.against:
        lines.append(f"pairs: {len(result.matches):,}")
    else:
        lines.append(
            f"duplicates: {number['identical']:,} identical + {number['near']:,} near = "
            f"{number['identical'] + number['near']:,} files in {number['groups']:,} groups; "
            f"images without a duplicate: {number['single']:,}"
        )
    return lines


def not_compared(result: Result) -> list[str]:
    """Lines for people: which files were not compared, and why."""
    lines = [f"unreadable: {path}: {why}" for path, why in sorted(result.collection.unreadable.items())]
    return lines + [f"left out: {line}" for line in result.collection.left_out]


def _source(result: Result, request: Request) -> str:
    if result.source == CALIBRATED:
        return f"calibrated on {result.calibration.copies:,} copies of these images" if result.calibration else ""
    if result.source == SHIPPED:
        if not result.undecided:
            return "the model's shipped default, which decided nothing: pixels tell about every pair"
        few = (
            "no threshold is shown to be"
            if result.calibration
            else "there are too few images to show a threshold to be"
        )
        return f"the model's shipped default: {few} {request.precision:g} % precise here"
    return "given"


def _calibration(result: Result) -> str:
    found = result.calibration
    assert found
    return (
        f"calibration: {found.found:.1%} of {found.copies:,} altered copies are found; a copy matches "
        f"{found.false_per_image:.4f} wrong images, at most {found.at_most:.4f} (95 % bound), so of "
        f"{found.pairs:,} pairs found here about {found.expected_false:.0f} should be wrong"
    )
