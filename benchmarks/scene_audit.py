"""How often the scene audit confirms shots of one scene, and how often images that have nothing in common.

Scenes are made, or cut from photographs that packages carry (those of one photograph are never compared with each
other). Shots of a scene differ in frame, angle and light; every image is also saved with losses.

    python benchmarks/scene_audit.py --scenes 120 --unrelated 20000
"""

import argparse
import sys
import time
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import cv2
import numpy as np
from PIL import Image
from rich.console import Console

from lookalike.io import in_work
from lookalike.measure.audit.features import PLACES, Features, agreement, features_of, grey_of, mirrored
from lookalike.sample import photo_tiles
from phone_folder import CANVAS, SHOTS, compressed, scene_canvas, take_shot

Pair = tuple[Features, Features]


def canvases(count: int, photographs: bool, draw: np.random.Generator) -> list[tuple[str, Image.Image]]:
    """Scenes, each with the name of what it must not be compared with."""
    if not photographs:
        return [(str(number), scene_canvas(draw)) for number in range(count)]
    found = []
    for carrier in photo_tiles.CARRIERS:
        for name in carrier.photographs:
            photograph = photo_tiles._read(carrier, photo_tiles._folder(carrier), name, in_work.Guard())
            found.append((name, photograph.resize(CANVAS, Image.Resampling.LANCZOS)))
    return found


def main() -> None:
    """Make the shots, hold them against each other, and print the shares that are confirmed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=60, help="number of made scenes")
    parser.add_argument("--unrelated", type=int, default=4_000, help="number of pairs of different scenes")
    parser.add_argument("--photographs", action="store_true", help="shots of photographs instead of made scenes")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    draw = np.random.default_rng(0)
    started = time.perf_counter()
    shots: list[tuple[str, Pair]] = []
    seconds = 0.0
    for name, canvas in canvases(options.scenes, options.photographs, draw):
        for _ in range(SHOTS):
            shot = compressed(take_shot(canvas, draw), int(draw.integers(40, 90)))
            begun = time.perf_counter()
            grey = grey_of(shot)
            shots.append((name, (features_of(grey), features_of(mirrored(grey)))))
            seconds += time.perf_counter() - begun
    console = Console()
    console.print(f"{len(shots):,} shots, {1000 * seconds / len(shots):.1f} ms each for features of both mirror images")
    pairs = list(combinations(range(len(shots)), 2))
    related = [pair for pair in pairs if shots[pair[0]][0] == shots[pair[1]][0]]
    others = [pair for pair in pairs if shots[pair[0]][0] != shots[pair[1]][0]]
    chosen = [others[row] for row in draw.permutation(len(others))[: options.unrelated]]
    for title, some in (("one scene", related), ("different scenes", chosen)):
        begun = time.perf_counter()
        places = np.array([max(agreement(mine, shots[b][1][0]) for mine in shots[a][1]) for a, b in some])
        spent = 1000 * (time.perf_counter() - begun) / len(some)
        shares = ", ".join(f"{(places >= least).mean():.3%} at {least}" for least in (8, 10, PLACES, 15, 20))
        console.print(f"{title}: {len(some):,} pairs, confirmed {shares}; {spent:.1f} ms a pair with known features")
    console.print(f"{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
