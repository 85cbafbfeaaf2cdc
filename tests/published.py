"""The published data sets in miniature: the layouts and formats as they are distributed, images of our own making."""

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from conftest import made_image

Files = dict[str, bytes]

REFERENCES, TRAINING = 12, 5
DEVELOPMENT = {"Q00000": "R000003", "Q00001": "R000007", "Q00002": "", "Q00003": "R000010", "Q00004": "", "Q00005": ""}
TEST = {"Q50000": "R000001", "Q50001": ""}
NAMED = ("3637013.jpg", "3662865.jpg", "440375442.jpg", "1377428277.jpg", "57193495.jpg", "1393947190.jpg")
FLICKR = (*NAMED, *(f"{1000 + number}.jpg" for number in range(8)))
COCO = tuple(f"{number:012d}.jpg" for number in range(139, 147))


def jpeg(seed: int, size: tuple[int, int] = (60, 48)) -> bytes:
    data = io.BytesIO()
    made_image(seed, size).save(data, "JPEG", quality=90)
    return data.getvalue()


def put(root: Path, part: str, files: Mapping[str, bytes], *, zipped: bool, inside: str = "") -> None:
    """Write files as a folder, or as a zip archive whose members lie in the folder ``inside``, where one is named."""
    root.mkdir(parents=True, exist_ok=True)
    if zipped:
        with zipfile.ZipFile(root / f"{part}.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(f"{inside}/{name}" if inside else name, data)
        return
    for name, data in files.items():
        (root / part / name).parent.mkdir(parents=True, exist_ok=True)
        (root / part / name).write_bytes(data)


def as_tars(root: Path) -> None:
    """Replace the zip archives in a folder by uncompressed tars of the same names."""
    for path in root.glob("*.zip"):
        with zipfile.ZipFile(path) as archive, tarfile.open(path.with_suffix(".tar"), "w") as tar:
            for name in archive.namelist():
                member = tarfile.TarInfo(name)
                member.size = archive.getinfo(name).file_size
                tar.addfile(member, io.BytesIO(archive.read(name)))
        path.unlink()


def references() -> Files:
    return {f"R{number:06d}.jpg": jpeg(number) for number in range(REFERENCES)}


def queries(truth: Mapping[str, str]) -> Files:
    """A query is its reference, smaller; a distractor is an image of its own."""
    return {
        f"{query}.jpg": jpeg(int(reference[1:]), (40, 32)) if reference else jpeg(1000 + int(query[1:]))
        for query, reference in truth.items()
    }


def with_header(truth: Mapping[str, str]) -> bytes:
    """A row for each query, blank where it has no match."""
    return ("query_id,reference_id\n" + "".join(f"{query},{match}\n" for query, match in truth.items())).encode()


def positives_only(truth: Mapping[str, str]) -> bytes:
    """No header, CRLF, no newline at the end."""
    return "\r\n".join(f"{query},{match}" for query, match in truth.items() if match).encode()


def disc21(root: Path, *, zipped: bool, header: bool = False, test: bool = True) -> Path:
    """References in two archives as they are named by those who publish them, or in folders."""
    files = references()
    if zipped:
        put(root, "refs_50k_0", dict(list(files.items())[:7]), zipped=True, inside="refs_50k_0")
        put(root, "refs_50k_01", dict(list(files.items())[7:]), zipped=True)
    else:
        put(root, "references", files, zipped=False)
    put(root, "dev_queries_50k_0" if zipped else "dev_queries", queries(DEVELOPMENT), zipped=zipped, inside="dev")
    put(
        *(root, "train_50k_0" if zipped else "train"),
        {f"T{number:06d}.jpg": jpeg(500 + number) for number in range(TRAINING)},
        zipped=zipped,
    )
    truth = with_header if header else positives_only
    (root / "dev_queries_groundtruth.csv").write_bytes(truth(DEVELOPMENT))
    if test:
        put(root, "test_queries_50k_0" if zipped else "final_queries", queries(TEST), zipped=zipped)
        (root / "test_queries_groundtruth.csv").write_bytes(truth(TEST))
    return root


def captions(name: str) -> list[str]:
    thing = ("dog", "boat", "train")[sum(map(ord, name)) % 3]
    return [f"Caption {number} of {name}, with a {thing}." for number in range(5)]


def token(names: Sequence[str]) -> bytes:
    lines = [f"{name}#{number}\t{text}" for name in names for number, text in enumerate(captions(name))]
    return "\n".join(lines).encode()


def bars(names: Sequence[str]) -> bytes:
    """The CSV that circulates, with one row that lacks its second bar, as there."""
    rows = [f"{name}| {number}| {text}" for name in names for number, text in enumerate(captions(name))]
    rows[4] = rows[4].replace("| 4|", "| 4  ")
    return "\r\n".join(["image_name| comment_number| comment", *rows]).encode()


def flickr30k(root: Path, *, zipped: bool, csv: bool = False) -> Path:
    images = {name: jpeg(seed) for seed, name in enumerate(FLICKR)}
    put(root, "flickr30k-images", images, zipped=zipped, inside="flickr30k-images")
    (root / ("results.csv" if csv else "results_20130124.token")).write_bytes((bars if csv else token)(FLICKR))
    return root


def instances() -> bytes:
    """Two objects of one category in the first image, two categories in the second, none in the others."""
    images = [{"id": int(name[:12]), "file_name": name} for name in COCO]
    annotations = [
        {"id": number, "image_id": 139 + image, "category_id": category}
        for number, (image, category) in enumerate([(0, 18), (0, 18), (1, 62), (1, 1)])
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 62, "name": "chair"}]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()


def coco(root: Path, *, zipped: bool) -> Path:
    put(root, "val2017", {name: jpeg(seed) for seed, name in enumerate(COCO)}, zipped=zipped, inside="val2017")
    if zipped:
        put(root, "annotations_trainval2017", {"annotations/instances_val2017.json": instances()}, zipped=True)
    else:
        put(root, "annotations", {"instances_val2017.json": instances()}, zipped=False)
    return root
