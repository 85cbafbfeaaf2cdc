"""Files that programs keep beside images are not images of the data set, and are counted by reason."""

import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

import published
from conftest import ImageFolder, made_image
from lookalike.io import store
from lookalike.io.formats.tables import IMAGES
from lookalike.sample import left_out
from lookalike.sample import sample as datasets
from lookalike.sample.left_out import LeftOut
from lookalike.sample.make_images import MakeImagesJob, make_images

SERVED = (
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "#recycle/deleted.jpg",
    "$RECYCLE.BIN/S-1-5/$R1.jpg",
    "lost+found/x.jpg",
    ".Trash-1000/files/x.jpg",
    "__MACOSX/b.jpg",
    "._hidden.jpg",
    "Previews.lrdata/1/x.jpg",
    ".thumbnails/x.jpg",
    "Thumbnails/x.jpg",
    "deep/er/@eaDir/y/x.jpg",
    "@Recycle/x.jpg",
    "System Volume Information/x.jpg",
    "Photos Library.photoslibrary/resources/derivatives/1/x.jpg",
    "appdata_oc1x/preview/x.jpg",
)
TAKEN = ("a.jpg", "deep/er/b.jpg", "Photos Library.photoslibrary/originals/1/c.jpg", "resources/d.jpg", "thumbs up.jpg")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(root: str, *paths: str) -> None:
    for number, path in enumerate(paths):
        Path(root, path).parent.mkdir(parents=True, exist_ok=True)
        made_image(number).save(Path(root, path), "JPEG")


def sample(key: dict[str, str]) -> tuple[list[str], dict[str, int]]:
    """The images of a data set, and what its footer says was left out."""
    datasets.sample(
        datasets.SampleJob("mine", json.dumps(key), None, "results/images.parquet", "results/truth.parquet")
    )
    counts = store.read_provenance("results/images.parquet")["left_out"]
    paths = store.read_table("results/images.parquet", IMAGES)["path"].to_pylist()
    totals = Counter[str]()
    for row in counts:
        totals[row["reason"]] += row["count"]
    return paths, dict(totals)


def test_service_folders_are_left_out_of_a_folder_and_counted_by_reason(caplog: pytest.LogCaptureFixture) -> None:
    put("photos", *SERVED, *TAKEN)
    with caplog.at_level("INFO"):
        paths, counts = sample({"kind": "folder", "root": "photos"})
    assert paths == sorted(TAKEN)
    assert counts["thumbnails that a Synology NAS keeps (@eaDir)"] == 2
    assert counts["the recycle bin of Windows ($RECYCLE.BIN)"] == 1
    assert counts["what a photo library of Apple makes of its originals (resources)"] == 1
    assert sum(counts.values()) == len(SERVED)
    assert "photos: left out: the recycle bin of a Synology NAS (#recycle): 1, #recycle/" in caplog.text


def test_thumbnails_of_a_nas_do_not_change_a_data_set(image_folder: ImageFolder) -> None:
    image_folder(Path("photos"), 6)
    plain, _ = sample({"kind": "folder", "root": "photos"})
    for path in plain:
        for name in ("XL", "M", "SM"):
            put("photos", f"@eaDir/{path}/SYNOPHOTO_THUMB_{name}.jpg")
    assert sample({"kind": "folder", "root": "photos"})[0] == plain


def test_thirty_raw_files_beside_eight_images_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    put("photos", *(f"{number}.jpg" for number in range(8)))
    for number in range(30):
        Path("photos", f"DSC_{number:04d}.NEF").write_bytes(b"MM\0*")
    with caplog.at_level("INFO"):
        paths, counts = sample({"kind": "folder", "root": "photos"})
    assert len(paths) == 8
    assert counts == {".nef files, which are camera raw (convert them to JPEG to have them)": 30}
    assert "photos: left out: .nef files, which are camera raw" in caplog.text


def test_a_folder_with_only_thumbnails_is_an_error_unless_it_is_the_root() -> None:
    put("photos", "Thumbnails/x.jpg")
    with pytest.raises(
        Exception, match=r"contains no images .*Left out: thumbnails, .* \(Thumbnails\): 1, Thumbnails/\."
    ):
        sample({"kind": "folder", "root": "photos"})
    assert sample({"kind": "folder", "root": "photos/Thumbnails"})[0] == ["x.jpg"]


def test_a_thousand_extensions_do_not_become_a_thousand_reasons() -> None:
    odd = LeftOut()
    for number in range(1000):
        odd.add_extension(f"scan.{number:04d}")
    odd.add_extension("README")
    odd.add_extension("x.jpg~")
    assert sum(odd.counts.values()) == 1002
    assert len(odd.counts) <= left_out.MOST_EXTENSIONS + 2
    assert (odd.counts["files without an extension"], odd.counts["files with other extensions"]) == (1, 961)


@pytest.mark.parametrize("zipped", [True, False])
def test_service_folders_are_left_out_of_published_data_sets_too(*, zipped: bool) -> None:
    root = published.coco(Path("coco"), zipped=zipped)
    plain, _ = sample({"kind": "coco", "root": "coco"})
    names = (
        "@eaDir/000000000139.jpg",
        "__MACOSX/000000000140.jpg",
        "__MACOSX/._000000000140.jpg",
        ".x/000000000141.jpg",
    )
    for name in names:
        if zipped:
            with zipfile.ZipFile(root / "val2017.zip", "a") as archive:
                archive.writestr(f"val2017/{name}", published.jpeg(1))
        else:
            put("coco/val2017", name)
    put("coco", "@eaDir/val2017/000000000139.jpg")
    paths, counts = sample({"kind": "coco", "root": "coco"})
    assert paths == plain
    assert counts == {
        "thumbnails that a Synology NAS keeps (@eaDir)": 2,
        "metadata that macOS puts into zip archives (__MACOSX)": 1,
        "hidden files and folders": 1,
    }


def test_counts_reach_the_data_set_of_copies(image_folder: ImageFolder) -> None:
    image_folder(Path("photos"), 12)
    put("photos", "@eaDir/x.jpg")
    sample({"kind": "folder", "root": "photos"})
    key = json.dumps({"kind": "copies", "of": "mine", "queries": 3})
    manifest = "results/copies/images/manifest.parquet"
    archives = ["results/copies/images/queries-00000.zip"]
    make_images(MakeImagesJob("copies", key, "results/images.parquet", archives, manifest, "make_images.in_work"))
    datasets.sample(
        datasets.SampleJob("copies", key, manifest, "results/copies/images.parquet", "results/copies/truth.parquet")
    )
    expected = store.read_provenance("results/images.parquet")["left_out"]
    assert len(expected) == 1
    assert store.read_provenance("results/copies/images.parquet")["left_out"] == expected
    assert store.read_table("results/copies/images.parquet", IMAGES)["content_hash"].null_count == 0
