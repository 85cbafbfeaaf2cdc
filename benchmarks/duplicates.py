"""How precise and how complete `lookalike duplicates` is, on copies made of photographs that packages carry.

The photographs of scikit-image and scikit-learn are cut into tiles that do not overlap. Of each tile there are seven
copies: recompressed, resized, cropped by 5 to 20 %, captioned, mirrored, as WebP, and mirrored and cropped. Bursts are
shots of the whole photographs: the same scene in another frame, angle and light, so none is a copy of another. Tiles of
one texture (grass, gravel, a page of text) look much alike and are different images, too.

    python benchmarks/duplicates.py --models sscd-int8,phash-256
    python benchmarks/duplicates.py --turned         # copies that are turned instead
    python benchmarks/duplicates.py --calibrate      # the table in cli/duplicate_search/defaults.py
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from lookalike.cli.duplicate_search import defaults
from lookalike.cli.duplicate_search.search import Request, search
from lookalike.io import in_work
from lookalike.sample import photo_tiles
from phone_folder import CANVAS, take_shot

Draw = np.random.Generator
Change = Callable[[Image.Image, Draw], tuple[Image.Image, str, int]]  # image, format, quality
SHOTS = 6


def resized(image: Image.Image, share: float) -> Image.Image:
    """The image with its sides multiplied by ``share``."""
    return image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.LANCZOS)


def cropped(image: Image.Image, draw: Draw) -> Image.Image:
    """The image without 5 to 20 % of its width and height, somewhere."""
    share = 1 - float(draw.uniform(0.05, 0.2))
    width, height = round(image.width * share), round(image.height * share)
    left, top = (int(draw.integers(0, most + 1)) for most in (image.width - width, image.height - height))
    return image.crop((left, top, left + width, top + height))


def captioned(image: Image.Image) -> Image.Image:
    """The image with a line of text over its lower edge."""
    copy = image.copy()
    text = ImageDraw.Draw(copy)
    text.text((image.width * 0.08, image.height * 0.85), "Happy birthday!", fill="white", font_size=image.height // 10)
    return copy


def mirrored(image: Image.Image) -> Image.Image:
    """The mirror image."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


KINDS: dict[str, Change] = {
    "recompressed": lambda image, draw: (image, "JPEG", int(draw.integers(30, 71))),
    "resized": lambda image, draw: (resized(image, float(draw.uniform(0.4, 0.8))), "JPEG", 80),
    "cropped": lambda image, draw: (cropped(image, draw), "JPEG", 85),
    "captioned": lambda image, draw: (captioned(image), "JPEG", 85),
    "mirrored": lambda image, draw: (mirrored(image), "JPEG", 85),
    "WebP": lambda image, draw: (image, "WEBP", int(draw.integers(40, 81))),
    "mirrored, cropped": lambda image, draw: (mirrored(cropped(image, draw)), "JPEG", 85),
}


def straightened(image: Image.Image, degrees: float) -> Image.Image:
    """The image turned by some degrees, less the corners that it has no pixels for."""
    turned = image.rotate(degrees, Image.Resampling.BICUBIC)
    margin = int(np.ceil(max(image.size) * np.sin(np.radians(degrees)))) + 1
    return turned.crop((margin, margin, image.width - margin, image.height - margin))


TURNED: dict[str, Change] = {
    "by 90°": lambda image, draw: (image.transpose(Image.Transpose.ROTATE_90), "JPEG", 85),
    "by 180°": lambda image, draw: (image.transpose(Image.Transpose.ROTATE_180), "JPEG", 85),
    "by 90°, cropped": lambda image, draw: (cropped(image, draw).transpose(Image.Transpose.ROTATE_90), "JPEG", 85),
    "by 0.3°": lambda image, draw: (straightened(image, 0.3), "JPEG", 85),
    "by 1°": lambda image, draw: (straightened(image, 1), "JPEG", 85),
}


def photographs() -> list[tuple[str, Image.Image]]:
    """The photographs and their names."""
    return [
        (Path(name).stem, photo_tiles._read(carrier, photo_tiles._folder(carrier), name, in_work.Guard()))
        for carrier in photo_tiles.CARRIERS
        for name in carrier.photographs
    ]


def make(folder: Path, side: int, kinds: dict[str, Change] = KINDS, seed: int = 0) -> dict[str, tuple[str, str]]:
    """Fill a folder; return each file's image, and its kind."""
    draw = np.random.default_rng(seed)
    truth = {}

    def save(name: str, change: tuple[Image.Image, str, int], of: str, kind: str) -> None:
        image, form, quality = change
        path = folder / f"{name}.{'webp' if form == 'WEBP' else 'jpg'}"
        image.save(path, form, quality=quality)
        truth[str(path)] = (of, kind)

    for name, photograph in photographs():
        for row, column, tile in photo_tiles._tiles(photograph, side):
            if np.asarray(tile.convert("L")).std() < photo_tiles.FLAT:
                continue
            tile_name = f"{name}-{row}-{column}"
            save(tile_name, (tile, "JPEG", 95), tile_name, "original")
            for kind, change in kinds.items():
                save(f"{tile_name}-{kind.replace(', ', '-')}", change(tile, draw), tile_name, kind)
        canvas = photograph.resize(CANVAS, Image.Resampling.LANCZOS)
        for number in range(SHOTS):
            shot = f"{name}-shot-{number}"
            save(shot, (take_shot(canvas, draw), "JPEG", int(draw.integers(60, 95))), shot, "burst")
    return truth


def measured(folder: Path, truth: dict[str, tuple[str, str]], model: str, least: float) -> tuple[object, ...]:
    """A row of the table of shipped thresholds: where the cosines of copies and of others are."""
    from lookalike.cli.duplicate_search.comparing import compared
    from lookalike.cli.duplicate_search.reading import list_folders, read
    from lookalike.embed.library import load_model

    collection = read(list_folders([str(folder)]), load_model(model), folder.parent / "vector_store", 2)
    of = {file.sha256: truth[file.path] for file in collection.files}
    known = [of[sha256] for sha256 in collection.contents]
    names = np.unique([name for name, _ in known], return_inverse=True)[1]
    originals = np.array([kind == "original" for _, kind in known])
    cosines = collection.vectors @ collection.vectors.T
    same = (names[:, None] == names[None]) & originals[:, None] & ~originals[None]
    others = np.triu(names[:, None] != names[None], 1)
    pairs = compared(
        collection.vectors,
        collection.signatures,
        lambda row: collection.small.get(collection.contents[row]),
        least=least,
        threads=2,
    )
    wrong = names[pairs.rows[:, 0]] != names[pairs.rows[:, 1]]
    undecided = (pairs.score >= 0) & (pairs.score <= 1)
    right_scores, wrong_scores = (np.sort(pairs.score[undecided & rows]) for rows in (~wrong, wrong))
    thresholds = np.unique(np.concatenate([right_scores, wrong_scores, [1.0]]))
    holds = [
        threshold
        for threshold in thresholds
        if (wrong_scores >= threshold).sum() * 99 <= (right_scores >= threshold).sum() or threshold == 1.0
    ]
    return (
        model,
        *(f"{np.quantile(cosines[same], share):.2f}" for share in (0.01, 0.1, 0.5)),
        *(f"{np.quantile(cosines[others], share):.2f}" for share in (0.5, 0.99, 0.9999)),
        *(len(right_scores), len(wrong_scores), f"{wrong_scores.max(initial=0):.2f}", f"{holds[0]:.2f}"),
    )


def main() -> None:
    """Make the folder, search it with each model, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=200, help="side of a tile in pixels")
    parser.add_argument("--models", default="sscd-int8,phash-256", help="models, separated by commas")
    parser.add_argument("--precision", type=float, default=99, help="in percent")
    parser.add_argument("--threshold", type=float, help="instead of a calibrated one")
    parser.add_argument("--turned", action="store_true", help="copies turned by some angles instead")
    parser.add_argument("--calibrate", action="store_true", help="measure the shipped thresholds")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    console = Console(width=180)
    kinds = TURNED if options.turned else KINDS
    table = Table("model", "precision", "recall", *kinds, "threshold", "seconds")
    with tempfile.TemporaryDirectory() as folder:
        truth = make(Path(folder), options.side, kinds)
        copies = [path for path, (_, kind) in truth.items() if kind in kinds]
        bursts = sum(kind == "burst" for _, kind in truth.values())
        console.print(f"{len(truth):,} images: {len(copies):,} copies, {bursts} shots; tiles of {options.side} px")
        if options.calibrate:
            numbers = Table(
                *("model", "copies: 1 %", "10 %", "median", "others: median", "99 %", "99.99 %"),
                *("undecided right", "wrong", "highest wrong", "99 % precise from"),
            )
            for model in options.models.split(","):
                numbers.add_row(*map(str, measured(Path(folder), truth, model, defaults.of(model).candidates)))
            console.print(numbers)
            return
        for model in options.models.split(","):
            started = time.perf_counter()
            result = search(
                Request(Path(folder), model=model, precision=options.precision, threshold=options.threshold)
            )
            seconds = time.perf_counter() - started
            group_of = {
                member.file.path: number for number, group in enumerate(result.groups) for member in group.members
            }
            original = {of: path for path, (of, kind) in truth.items() if kind == "original"}
            hit = {path: group_of.get(path, -1) == group_of.get(original[truth[path][0]], -2) for path in copies}
            pairs = [
                (truth[a.file.path], truth[b.file.path])
                for group in result.groups
                for a, b in combinations(group.members, 2)
            ]
            right = sum(a[0] == b[0] for a, b in pairs)
            by_kind = [np.mean([hit[path] for path in copies if truth[path][1] == kind]) for kind in kinds]
            table.add_row(
                *(model, f"{right / max(len(pairs), 1):.2%}", f"{np.mean([*hit.values()]):.1%}"),
                *(f"{share:.1%}" for share in by_kind),
                *(f"{result.threshold:.3f} ({result.source})", f"{seconds:.0f}"),
            )
            console.print(result.calibration)
            for a, b in [pair for pair in pairs if pair[0][0] != pair[1][0]][:20]:
                console.print(f"  wrong: {a} {b}")
        console.print(table)


if __name__ == "__main__":
    main()
