import hashlib
import importlib.util
import logging
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import largest_file
from lookalike.config.datasets import PhotoTiles
from lookalike.io import images
from lookalike.io.formats.tables import MANIFEST
from lookalike.io.in_work import Guard
from lookalike.job.errors import LookalikeError
from lookalike.sample import photo_tiles, sample
from lookalike.sample.make_images import Album, MakeImagesJob, make_images
from lookalike.sample.shard_number import shard_of


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(tile=144, folder="results/photo-tiles/images"):
    with Album([f"{folder}/images-00000.zip", f"{folder}/images-00001.zip"]) as album:
        table = photo_tiles.make_images(PhotoTiles(kind="photo_tiles", tile=tile), None, album, Guard())
        album.pack()
    return table


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """The demo's tiles in a folder to be read only: their table, what was logged, and the folder."""
    folder, logged = tmp_path_factory.mktemp("tiles"), []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    logger = logging.getLogger("lookalike")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(logger, "level", logging.INFO)
        logger.addHandler(handler)
        table = make()
        logger.removeHandler(handler)
    return table, "\n".join(logged), folder


def hashes(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in Path(folder).iterdir()}


def test_the_demo_has_about_175_references_from_19_photographs(tiles):
    table = MANIFEST.check(tiles[0], "the manifest")

    assert 170 <= table.num_rows <= 180
    assert (
        len(set(table["group"].to_pylist())) == sum(len(carrier.photographs) for carrier in photo_tiles.CARRIERS) == 19
    )


def test_every_row_is_a_reference_whose_file_has_the_recorded_size(tiles, monkeypatch):
    table, _, folder = tiles
    monkeypatch.chdir(folder)

    for row in table.to_pylist():
        data = images.read_row(row)
        assert row["root"] == "results/photo-tiles/images"
        assert row["path"] == f"images-{shard_of(row['image_id'], 2):05d}.zip!{row['image_id']}"
        assert row["image_id"].rsplit("-", 2)[0] == row["group"]
        assert (row["reference"], row["query"], row["training"], row["source"]) == (True, False, False, None)
        assert len(data) == row["bytes"]
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        with Image.open(BytesIO(data)) as tile:
            assert (tile.format, tile.mode, tile.size) == ("PNG", "RGB", (144, 144))


def test_flat_tiles_are_left_out_and_counted(tiles, monkeypatch):
    table, logged, folder = tiles
    monkeypatch.chdir(folder)

    assert f"made {table.num_rows} tiles of 144 px, left out 18 flat ones" in logged
    for row in table.to_pylist():
        tile = images.load(row["root"], row["path"])
        assert np.asarray(tile.convert("L")).std() >= photo_tiles.FLAT


def test_two_runs_give_the_same_bytes(tiles):
    make(folder="again")

    assert hashes("again") == hashes(tiles[2] / "results/photo-tiles/images")


def test_the_grid_is_centered():
    photograph = Image.new("RGB", (110, 70))
    photograph.putpixel((5, 10), (255, 0, 0))

    tiles = photo_tiles._tiles(photograph, 50)

    assert [(row, column) for row, column, _ in tiles] == [(0, 0), (0, 1)]
    assert tiles[0][2].getpixel((0, 0)) == (255, 0, 0)


def test_the_packages_are_not_imported():
    script = (
        "import sys; from lookalike.sample import photo_tiles\n"
        "for carrier in photo_tiles.CARRIERS: assert photo_tiles._folder(carrier).is_dir()\n"
        "assert not {'skimage', 'sklearn'} & set(sys.modules), sys.modules"
    )
    library = Path(sample.__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(library)})


@pytest.mark.parametrize(("module", "distribution"), [("skimage", "scikit-image"), ("sklearn", "scikit-learn")])
def test_a_missing_package_is_named_before_anything_is_written(monkeypatch, module, distribution):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))

    with pytest.raises(LookalikeError) as error:
        make()

    assert str(error.value) == (
        f"kind: the package {distribution}, whose photographs are cut into tiles, is not installed. "
        f"Run: pip install 'lookalike[demo]', or: pip install {distribution}"
    )
    assert not Path("results").exists()


def test_a_missing_photograph_is_named_with_its_package(monkeypatch):
    carrier = photo_tiles.Carrier("scikit-image", "skimage", "data", ("gone.png",))
    monkeypatch.setattr(photo_tiles, "CARRIERS", (carrier,))

    with pytest.raises(
        LookalikeError, match=r"skimage/data/gone\.png of the package scikit-image cannot be used: .* Run"
    ):
        make()


def test_tiles_that_fit_nowhere_are_an_error():
    with pytest.raises(LookalikeError, match=r"^tile: no photograph is large enough for tiles of 1024 px\. Choose"):
        make(tile=1024)


def test_a_full_disk_is_reported_with_the_file_that_did_not_fit():
    folder = "results/photo-tiles/images"
    message = rf"^{folder}/\S+: cannot be written \(File too large\)\. Check .* free space\.$"
    with largest_file(100_000), pytest.raises(LookalikeError, match=message):  # the notes of images in work fit
        make_images(
            MakeImagesJob(
                dataset="photo-tiles",
                key='{"kind": "photo_tiles"}',
                sources=None,
                archives_out=[f"{folder}/images-00000.zip"],
                manifest_out=f"{folder}/manifest.parquet",
                notes="make_images.in_work",
            )
        )
    assert not list(Path(folder).iterdir()), "no half-written file is left"
