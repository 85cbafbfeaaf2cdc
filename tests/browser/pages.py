"""Reports of experiments on disk, with photographs that are cut into tiles, for tests in a browser."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from unit.test_report import Experiment

TILE = 144


def tiles(folder: Path, count: int) -> None:
    """Fill a folder with 0.jpg, 1.jpg, ...: crops of photographs, turned and toned so that no two are equal."""
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    draw = np.random.default_rng(0)
    for number in range(count):
        photo = photos[number % len(photos)]
        side = int(draw.integers(100, 260))
        x, y = (int(draw.integers(0, most - side)) for most in photo.size)
        tile = photo.crop((x, y, x + side, y + int(side * draw.uniform(0.6, 1.0)))).rotate(
            90 * int(draw.integers(4)), expand=True
        )
        toned = np.asarray(tile, float) * draw.uniform(0.6, 1.2, 3)
        Image.fromarray(toned.clip(0, 255).astype(np.uint8)).resize((TILE, TILE * tile.height // tile.width)).save(
            folder / f"{number}.png", "JPEG", quality=90
        )


def experiment(folder: Path, *, queries: int, references: int, models: int, **more: object) -> Experiment:
    """An experiment in which later models are more often wrong; every tenth query has no match."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"model-{number}" for number in range(models)]
    refs = [f"photo/ref-{number:05}.jpg" for number in range(references)]
    match_of = {
        f"photo/copy-{number:05}.jpg": None if number % 10 == 9 else refs[number % references]
        for number in range(queries)
    }
    tiles(folder, references + queries + 2)
    draw = np.random.default_rng(1)
    found, scores = {}, {}
    for strength, name in enumerate(names):
        for query, match in match_of.items():
            others = [refs[place] for place in draw.choice(references, 12, replace=False) if refs[place] != match][:11]
            place = 0 if draw.random() > (strength + 1) / (models + 2) else int(draw.integers(1, 13))
            found[name, query] = ([*others[:place], match, *others[place:]] if match else others)[:11]
            scores[name, query] = np.sort(draw.uniform(0.3, 1, len(found[name, query])))[::-1].tolist()
    names_of = ("crop:light", "blur:heavy", "jpeg:medium + rotate:light", "flip:medium")
    cameras = ("Nikon F3", "phone")
    return Experiment(
        folder,
        models=names,
        labels={name: f"Model {number + 1} of {models}" for number, name in enumerate(names)},
        references=refs,
        queries=match_of,
        operations={query: names_of[number % len(names_of)] for number, query in enumerate(match_of)},
        columns={"by_camera": {query: cameras[number % 3 == 0] for number, query in enumerate(match_of)}},
        found=found,
        scores=scores,
        accuracy={name: 0.9 - 0.1 * strength for strength, name in enumerate(names)},
        pooled=("",),
        k=10,
        **more,  # type: ignore[arg-type]
    )
