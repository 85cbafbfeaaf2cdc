"""DISC21, Flickr30k and COCO: sampled from folders and from the archives as they are distributed."""

import json
from pathlib import Path

import pytest

import published
from conftest import REPOSITORY
from lookalike.io import images
from lookalike.job.errors import LookalikeError
from lookalike.sample import sample as datasets
from published import FLICKR, NAMED
from sampled import entry, failure, ids, remarks, sample, shard

# --- Flickr30k ---


@pytest.mark.parametrize("packed", ["zip", "tar", ""])
@pytest.mark.parametrize("csv", [True, False])
def test_flickr30k_has_its_captions_and_shows_the_six_images(tmp_path: Path, packed: str, csv: bool) -> None:
    root = published.flickr30k(tmp_path / "flickr30k", zipped=bool(packed), csv=csv)
    if packed == "tar":
        published.as_tars(root)
    table, truth = sample("flickr30k", root)
    assert ids(table, "reference") == ids(table, "query") == sorted(FLICKR)
    assert truth.num_rows == 0
    for row in table.to_pylist():
        assert row["captions"] == published.captions(row["image_id"])
        assert row["showcase"] == (row["image_id"] in NAMED)
        assert len(images.read(row["root"], row["path"])) == row["bytes"]


def test_the_six_images_are_in_every_sample_and_a_larger_one_contains_the_smaller(tmp_path: Path) -> None:
    root = published.flickr30k(tmp_path / "flickr30k", zipped=True)
    chosen = [set(ids(sample("flickr30k", root, sample=number)[0], "query")) for number in (6, 9, 12)]
    assert chosen[0] == set(NAMED)
    assert chosen[0] < chosen[1] < chosen[2]
    assert [len(one) for one in chosen] == [6, 9, 12]
    assert set(ids(sample("flickr30k", root, sample=9, seed=1)[0], "query")) != chosen[1]
    assert "15 random images are requested, but only 14 were found" in failure("flickr30k", root, sample=15)


def test_a_copy_in_folders_within_folders_with_the_captions_among_them_is_read(tmp_path: Path) -> None:
    root = published.flickr30k(tmp_path / "flickr30k", zipped=False, csv=True)
    (root / "flickr30k_images").mkdir()
    (root / "flickr30k-images").rename(root / "flickr30k_images/flickr30k_images")
    (root / "results.csv").rename(root / "flickr30k_images/results.csv")
    assert sample("flickr30k", root)[0].num_rows == len(FLICKR)
    assert remarks("flickr30k", root) == []


def test_captions_and_images_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    root = published.flickr30k(tmp_path / "flickr30k", zipped=False)
    (root / f"flickr30k-images/{NAMED[0]}").unlink()
    (root / "flickr30k-images/99.jpg").write_bytes(published.jpeg(99))
    assert remarks("flickr30k", root) == [
        f"images: missing, not required: {NAMED[0]}, listed in 'always'",
        "captions: images without captions: 1, 99.jpg",
        f"captions: captions without images: 1, {NAMED[0]}",
    ]
    captions = {row["image_id"]: row["captions"] for row in sample("flickr30k", root)[0].to_pylist()}
    assert captions["99.jpg"] == []


def test_a_captions_file_of_another_format_is_named_with_its_line(tmp_path: Path) -> None:
    root = published.flickr30k(tmp_path / "flickr30k", zipped=False)
    (root / "results_20130124.token").write_text("1000.jpg#0\tA dog runs.\n1000.jpg 1 A dog.\n")
    assert "results_20130124.token, line 2: is '1000.jpg 1 A dog.'" in failure("flickr30k", root)
    (root / "mine.token").write_bytes(published.token(FLICKR))
    assert sample("flickr30k", root, captions="mine.token")[0].num_rows == len(FLICKR)


def test_an_archive_that_cannot_be_read_in_place_is_to_be_unpacked(tmp_path: Path) -> None:
    root = tmp_path / "flickr30k"
    root.mkdir()
    (root / "flickr30k-images.tar.gz").write_bytes(b"")
    assert "unpack flickr30k-images.tar.gz there (tar xf flickr30k-images.tar.gz)" in failure("flickr30k", root)


# --- COCO ---


@pytest.mark.parametrize("packed", ["zip", "tar", ""])
def test_coco_has_the_categories_of_the_objects_in_its_images(tmp_path: Path, packed: str) -> None:
    root = published.coco(tmp_path / "coco", zipped=bool(packed))
    if packed == "tar":
        published.as_tars(root)
    table, truth = sample("coco", root)
    assert ids(table, "reference") == ids(table, "query") == list(published.COCO)
    assert table["labels"].to_pylist() == [["dog"], ["chair", "person"], [], [], [], [], [], []]
    assert truth.num_rows == 0
    for row in table.to_pylist():
        assert len(images.read(row["root"], row["path"])) == row["bytes"]


def test_images_of_coco_that_are_missing_or_strange_are_named(tmp_path: Path) -> None:
    root = published.coco(tmp_path / "coco", zipped=False)
    (root / "val2017/000000000009.jpg").write_bytes(published.jpeg(9))
    assert remarks("coco", root) == ["images: images without annotations, left out: 1, 000000000009.jpg"]
    assert sample("coco", root)[0].num_rows == len(published.COCO)
    (root / "val2017" / published.COCO[0]).unlink()
    assert "images: 1 of the 8 annotated images, e.g. 000000000139.jpg: put val2017.zip" in failure("coco", root)


def test_a_file_that_holds_no_instances_is_named(tmp_path: Path) -> None:
    root = published.coco(tmp_path / "coco", zipped=False)
    (root / "annotations/instances_val2017.json").write_text('{"images": []}')
    assert "instances_val2017.json: is not an instances file of COCO (it has no 'categories')" in failure("coco", root)
    (root / "mine.json").write_bytes(published.instances())
    assert sample("coco", root, annotations="mine.json")[0].num_rows == len(published.COCO)


@pytest.mark.parametrize("before", ["val2017/", "/data/coco/val2017/", "val2017\\"])
def test_coco_is_the_same_however_folders_and_endings_are_written(tmp_path: Path, before: str) -> None:
    expected = sample("coco", published.coco(tmp_path / "coco", zipped=False))[0]["labels"]
    root = published.coco(tmp_path / "copy/coco", zipped=False)
    file = root / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    for one in content["images"]:
        one["file_name"] = before + one["file_name"]
    content["annotations"].append({"id": 9, "image_id": 999, "category_id": 1})
    file.write_text(json.dumps(content))
    for path in sorted((root / "val2017").iterdir()):
        path.rename(path.with_suffix(".JPG"))
    (root / "images").mkdir()
    (root / "val2017").rename(root / "images/val2017")
    table, _ = sample("coco", root)
    assert ids(table, "query") == list(published.COCO)
    assert table["labels"] == expected
    assert remarks("coco", root) == [
        "annotations: annotations of images that the file does not list, left out: 1, annotation 9 of 999"
    ]
    content["images"] = [{"id": 1, "file_name": "000000000001.jpg"}]
    file.write_text(json.dumps(content))
    assert "none of its 5 annotations is of an image that it lists" in failure("coco", root)


def flickr30k_as(name: str) -> str:
    rows = [(one, number, text) for one in FLICKR for number, text in enumerate(published.captions(one))]
    if name == "captions.txt":
        return "image,caption\n" + "".join(f"{one},{text}\n" for one, _, text in rows)
    if name == "comments.csv":
        return "image_name,comment_number,comment\n" + "".join(f'{one},{n},"{text}"\n' for one, n, text in rows)
    if name == "dataset_flickr30k.json":
        sentences = {one: [{"raw": text} for text in published.captions(one)] for one in FLICKR}
        return json.dumps({"images": [{"filename": one, "sentences": texts} for one, texts in sentences.items()]})
    raw = {one: json.dumps(published.captions(one)).replace('"', '""') for one in FLICKR}
    return "raw,sentids,split,filename,img_id\n" + "".join(f'"{raw[one]}","[0]",train,{one},0\n' for one in FLICKR)


@pytest.mark.parametrize(
    "name", ["captions.txt", "comments.csv", "dataset_flickr30k.json", "flickr_annotations_30k.csv"]
)
def test_captions_are_the_same_from_every_copy_and_endings_do_not_matter(tmp_path: Path, name: str) -> None:
    root = published.flickr30k(tmp_path / "flickr30k", zipped=False)
    (root / "results_20130124.token").unlink()
    (root / name).write_text(flickr30k_as(name))
    for path in sorted((root / "flickr30k-images").iterdir()):
        path.rename(path.with_suffix(".JPG"))
    more = {"captions": name} if name == "comments.csv" else {}
    table, _ = sample("flickr30k", root, **more)
    assert ids(table, "query") == sorted(FLICKR)
    assert all(row["captions"] == published.captions(row["image_id"]) for row in table.to_pylist())
    (root / name).write_text('{"images": []}' if name.endswith("json") else flickr30k_as(name).split("\n")[0])
    assert f"{name}: contains no captions. Fetch the file again" in failure("flickr30k", root, **more)


# --- all of them ---


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("disc21", ["refs_50k_*.zip", "dev_queries_50k_0.zip", "groundtruth.csv", "ai.meta.com", "CC BY-NC"]),
        ("flickr30k", ["flickr30k-images/", "results_20130124.token", "illinois.edu", "research"]),
        ("coco", ["val2017.zip", "annotations_trainval2017.zip", "cocodataset.org", "CC BY 4.0"]),
    ],
)
def test_a_missing_data_set_says_what_to_fetch_from_whom_under_which_licence_and_where_to_put_it(
    tmp_path: Path, kind: str, lines: list[str]
) -> None:
    root = tmp_path / "data" / kind
    root.parent.mkdir()
    message = failure(kind, root)
    for line in (*lines, f"Put it into: {root}", f"docs/{kind}.md", "lookalike check mine"):
        assert line in message, line
    assert (REPOSITORY / f"docs/{kind}.md").exists()
    root.write_bytes(b"a file")
    assert failure(kind, root) == (
        f"datasets.mine: {root}: is a file, not a folder. Set root to the folder with the data set's files."
    )


def test_links_are_followed_and_rings_of_them_are_not(tmp_path: Path) -> None:
    root = published.coco(tmp_path / "coco", zipped=False)
    (root / "val2017").rename(tmp_path / "elsewhere")
    (root / "val2017").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/ring").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/000000000999.jpg").symlink_to(tmp_path / "nowhere")
    assert sample("coco", root)[0].num_rows == len(published.COCO)
    assert remarks("coco", root) == [
        "images: broken links, and other things that are not regular files: 1, val2017/000000000999.jpg",
        "images: symlink cycles: 1, val2017/ring",
    ]


def test_any_kind_of_data_set_may_say_what_is_expected(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    (root / "a.jpg").write_bytes(published.jpeg(0))
    sample("folder", root)
    shard(root, {"references": 1})
    with pytest.raises(LookalikeError, match=r"^datasets\.mine\.expect: 2 references were expected, and 1 found\. Add"):
        shard(root, {"references": 2})


def test_all_data_sets_that_are_missing_are_named_at_once_in_the_words_of_the_sample_stage(tmp_path: Path) -> None:
    there = tmp_path / "photos"
    there.mkdir()
    (there / "a.jpg").write_bytes(published.jpeg(0))
    entries = {
        "complete": entry("folder", there),
        "no-root": entry("folder", tmp_path / "nowhere"),
        "no-queries": entry("folder", there, queries=str(tmp_path / "nowhere")),
        "no-truth": entry("folder", there, queries=str(there), truth=str(tmp_path / "truth.csv")),
        "no-showcase": entry("folder", there, showcase=str(tmp_path / "nowhere")),
        "nothing": entry("disc21", tmp_path / "nowhere"),
        "part": entry("coco", published.coco(tmp_path / "coco", zipped=False)),
    }
    next((tmp_path / "coco").rglob("instances*.json")).unlink()
    said = datasets.missing_data(entries)
    for name, one in entries.items():
        if name == "complete":
            assert f"datasets.{name}" not in said
            continue
        with pytest.raises(LookalikeError) as caught:
            datasets.sample(datasets.SampleJob(name, one.model_dump_json(), None, tmp_path / "i", tmp_path / "t"))
        if name != "no-truth":  # whose queries are its root, too
            assert said.count(str(caught.value)) == 1
    assert f"datasets.no-truth.truth: the file '{tmp_path}/truth.csv' does not exist." in said
    assert datasets.missing_data({"complete": entries["complete"]}) == ""
