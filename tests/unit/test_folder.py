import csv
import logging
import os
import stat
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from lookalike.config.datasets import Folder
from lookalike.io.extensions import EXTENSIONS
from lookalike.io.formats.tables import IMAGES, TRUTH
from lookalike.io.images import load
from lookalike.job.errors import LookalikeError
from lookalike.sample import folder as folder_kind
from lookalike.sample.left_out import LeftOut

CHECK_THE_PATH = "Check the path: relative paths start at the folder where snakemake is run."


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def put(*paths):
    for number, path in enumerate(paths):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4 + number, 4)).save(path, format="PNG")


def sample(**entry):
    images, truth = folder_kind.sample(Folder(kind="folder", **{"root": "photos"} | entry), "datasets.mine")
    return IMAGES.check(images, "images").to_pylist(), TRUTH.check(truth, "truth").to_pylist()


def ids(rows):
    return [row["image_id"] for row in rows]


def message(**entry):
    with pytest.raises(LookalikeError) as error:
        sample(**entry)
    return str(error.value)


def with_truth(text, **entry):
    put("photos/a.png", "photos/b.png", "queries/q1.png", "queries/q2.png")
    Path("truth.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return {"queries": "queries", "truth": "truth.csv"} | entry


# --- which files are images ---


def test_images_are_found_in_all_folders_and_sorted_by_id():
    put("photos/b/2.jpeg", "photos/a.png", "photos/b/1.PNG", "photos/b/c/d.TiF", "photos/b.webp")

    images, truth = sample()

    assert ids(images) == ["a.png", "b.webp", "b/1.PNG", "b/2.jpeg", "b/c/d.TiF"]
    assert truth == []


def test_a_row_says_where_the_image_is_and_how_large():
    put("photos/sub/a.png")

    images, _ = sample(root="./photos/")

    size = Path("photos/sub/a.png").stat().st_size
    assert images == [
        {
            "image_id": "sub/a.png",
            "reference": True,
            "query": True,
            "training": False,
            "root": "./photos/",
            "path": "sub/a.png",
            "bytes": size,
            "group": None,
        }
    ]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_known_extension_is_an_image(extension):
    put(f"photos/a{extension}", f"photos/b{extension.upper()}")

    assert len(sample()[0]) == 2


def test_other_files_are_counted_and_an_example_is_given(caplog):
    put("photos/a.png", "photos/x.txt", "photos/sub/notes.txt", "photos/sub/z.pdf", "photos/.DS_Store")

    with caplog.at_level(logging.INFO):
        images, _ = sample()

    assert ids(images) == ["a.png"]
    assert "photos: left out: .txt files: 2, sub/notes.txt, x.txt" in caplog.text.replace(
        "x.txt, sub/notes.txt", "sub/notes.txt, x.txt"
    )
    assert "photos: left out: hidden files and folders: 1, .DS_Store" in caplog.text


def test_hidden_files_and_folders_are_left_out():
    put("photos/a.png", "photos/.b.png", "photos/.thumbnails/c.png")

    assert ids(sample()[0]) == ["a.png"]


def test_unreadable_images_are_sampled_since_embedding_lists_them_as_rejected():
    put("photos/a.png")
    Path("photos/broken.jpg").write_bytes(b"")

    assert ids(sample()[0]) == ["a.png", "broken.jpg"]


def test_links_are_followed_but_not_in_circles(caplog):
    put("photos/a.png", "elsewhere/b.png")
    Path("photos/linked").symlink_to(Path("elsewhere").absolute())
    Path("elsewhere/back").symlink_to(Path("photos").absolute())
    Path("photos/dangling.png").symlink_to("nowhere.png")

    with caplog.at_level(logging.INFO):
        images, _ = sample()

    assert ids(images) == ["a.png", "linked/b.png"]
    assert "links to folders that are already listed: 1, linked/back/" in caplog.text
    assert "broken links, and other things that are not regular files: 1, dangling.png" in caplog.text


def test_links_to_and_fro_list_every_folder_once(caplog):
    names = [f"{number}" for number in range(12)]
    put(*(f"photos/{name}/a.png" for name in names))
    for one in names:
        for other in names:
            Path(f"photos/{one}/to-{other}").symlink_to(Path("photos", other).absolute())

    with caplog.at_level(logging.INFO):
        images, _ = sample()

    assert ids(images) == sorted(f"{name}/a.png" for name in names)  # and not one for each of 12! ways
    assert "links to folders that are already listed: 144, such as" in caplog.text


def test_a_link_to_itself_and_links_to_each_other_are_no_files(caplog):
    put("photos/a.png")
    for name, target in {"self.png": "self.png", "to.png": "fro.png", "fro.png": "to.png", "circle": "circle"}.items():
        Path("photos", name).symlink_to(target)

    with caplog.at_level(logging.INFO):
        images, _ = sample()

    assert ids(images) == ["a.png"]
    assert "broken links, and other things that are not regular files: 3, fro.png, self.png, to.png" in caplog.text


def test_linked_images_are_images():
    put("elsewhere/b.png")
    Path("photos").mkdir()
    Path("photos/a.png").symlink_to(Path("elsewhere/b.png").absolute())

    assert [(row["image_id"], row["bytes"]) for row in sample()[0]] == [
        ("a.png", Path("elsewhere/b.png").stat().st_size)
    ]


def test_what_is_no_file_is_left_out(caplog):
    put("photos/a.png")
    os.mkfifo("photos/pipe.png")
    Path("photos/folder.png").mkdir()

    with caplog.at_level(logging.INFO):
        images, _ = sample()

    assert ids(images) == ["a.png"]
    assert "broken links, and other things that are not regular files: 1, pipe.png" in caplog.text


ODD_NAMES = (
    "two words.png",
    " leading and trailing .png",
    'it\'s "quoted".png',
    "new\nline.png",
    "tab\t, comma; semicolon.png",
    "back\\slash.png",
    "%41 #1 & <b>?*.png",
    "-rf.png",
    "東京/写真.png",
    "مرحبا.png",
    "Ω≈ç√/ñandú.png",
    "e\u0301 and \u00e9/e\u0301.png",
    "e\u0301 and \u00e9/\u00e9.png",
    "🐈‍⬛.png",
    "a.zip!b.png",
)


def test_ids_are_the_names_whatever_is_in_them_and_stay_when_the_root_moves():
    put(*(f"photos/{name}" for name in ODD_NAMES), 'queries/q,\n"1".png')
    with Path("truth.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("query_id", "reference_id"), *(('q,\n"1".png', name) for name in ODD_NAMES)])

    images, truth = sample(queries="queries", truth="truth.csv")

    assert ids(images) == [*sorted(ODD_NAMES), 'q,\n"1".png']
    assert sorted(row["reference_id"] for row in truth) == sorted(ODD_NAMES)
    Path("moved/far").mkdir(parents=True)
    Path("photos").rename("moved/far/away")
    moved, _ = sample(root="moved/far/away", queries="queries", truth="truth.csv")
    assert [row | {"root": ""} for row in moved] == [row | {"root": ""} for row in images]
    assert all(load(row["root"], row["path"]).height == 4 for row in moved)


class Listed:
    """What scandir says of a file or of a folder; not on a disk, which would take most of the time."""

    def __init__(self, folder, name, mode):
        self.name, self.path, self.mode = name, f"{folder}/{name}", mode

    def is_dir(self):
        return stat.S_ISDIR(self.mode)

    def is_symlink(self):
        return False

    def stat(self):
        return os.stat_result((self.mode, 0, 0, 1, 0, 0, 12_345, 0, 0, 0))


def test_a_hundred_thousand_images_take_seconds_and_little_memory(monkeypatch):
    Path("photos").mkdir()
    names = {"photos": [f"{number}" for number in range(20)]}
    names |= {f"photos/{name}": [f"{number}.jpg" for number in range(5_000)] for name in names["photos"]}

    @contextmanager
    def scandir(folder):
        mode = stat.S_IFDIR if folder == "photos" else stat.S_IFREG
        yield (Listed(folder, name, mode) for name in names[folder])

    monkeypatch.setattr(os, "scandir", scandir)
    tracemalloc.start()
    started = time.process_time()

    images, _ = folder_kind.sample(Folder(kind="folder", root="photos"), "datasets.mine")

    took = time.process_time() - started
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert images.num_rows == 100_000
    assert took < 30  # about one second where nothing is traced
    assert most < 80e6


# --- what is wrong with a folder ---


def test_a_missing_folder():
    assert message() == f"datasets.mine.root: the folder 'photos' does not exist. {CHECK_THE_PATH}"


def test_a_missing_folder_of_queries():
    put("photos/a.png")

    assert message(queries="q") == f"datasets.mine.queries: the folder 'q' does not exist. {CHECK_THE_PATH}"


def test_a_root_that_is_a_file():
    put("photos")

    assert message() == ("datasets.mine.root: 'photos' is a file, not a folder. Set it to the folder with the images.")


def test_an_empty_folder():
    Path("photos").mkdir()

    assert message() == (f"datasets.mine.root: 'photos' contains no images (looked for {', '.join(EXTENSIONS)}).")


def test_a_sub_folder_that_cannot_be_read(monkeypatch):
    put("photos/a.png", "photos/private/b.png")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("private"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)

    assert message() == (
        "datasets.mine.root: the folder 'photos/private' cannot be read (Permission denied). "
        "Grant yourself permission to read it, or move it out."
    )


def test_names_that_are_not_utf8_are_left_out_and_listed():
    put("photos/a.png")
    Path(os.fsdecode(b"photos/\xff.png")).write_bytes(b"")

    put(os.fsdecode(b"photos/\xfc/b.png"))

    skipped: dict[str, LeftOut] = {}

    images, _ = folder_kind.sample(Folder(kind="folder", root="photos"), "datasets.mine", skipped)

    assert images["image_id"].to_pylist() == ["a.png"]
    assert skipped["photos"].lines() == [r"names that are not valid UTF-8 (rename them): 2, \xfc/, \xff.png"]


# --- queries ---


def test_queries_have_ids_inside_their_own_folder():
    put("photos/a.png", "queries/sub/q.png")

    images, _ = sample(queries="queries")

    assert [(row["image_id"], row["root"], row["reference"], row["query"]) for row in images] == [
        ("a.png", "photos", True, False),
        ("sub/q.png", "queries", False, True),
    ]


def test_queries_inside_root_are_queries_only():
    put("photos/a.png", "photos/queries/q.png")

    images, _ = sample(queries="photos/queries")

    assert [(row["image_id"], row["query"]) for row in images] == [("a.png", False), ("q.png", True)]


def test_root_inside_the_queries_holds_references_only():
    put("all/a/r.png", "all/q.png")

    images, _ = sample(root="all/a", queries="all")

    assert [(row["image_id"], row["query"]) for row in images] == [("r.png", False), ("q.png", True)]


def test_root_and_queries_must_differ():
    put("photos/a.png")

    assert message(queries="./photos") == (
        "datasets.mine.queries: './photos' is also the root. Move the queries to a separate folder."
    )


def test_the_same_id_in_root_and_queries():
    put("photos/sub/a.png", "queries/sub/a.png")

    assert message(queries="queries") == (
        "datasets.mine.queries: 'sub/a.png' is both in root ('photos') and in queries ('queries'), and every id, the "
        "path inside its folder, must be unique. Rename one of the two, or move all queries into a sub-folder of "
        "'queries'."
    )


def test_queries_without_truth_are_said_to_have_no_matches(caplog):
    put("photos/a.png", "queries/q.png")

    assert sample(queries="queries")[1] == []
    assert "datasets.mine: there is no truth file, so the queries have no true matches" in caplog.text


# --- training images ---


def test_training_images_are_in_that_role_only():
    put("photos/a.png", "photos/t/x.png", "queries/q.png")

    images, _ = sample(queries="queries", training="photos/t")

    assert [(row["image_id"], row["root"], row["reference"], row["query"], row["training"]) for row in images] == [
        ("a.png", "photos", True, False, False),
        ("q.png", "queries", False, True, False),
        ("x.png", "photos/t", False, False, True),
    ]
    assert Folder(kind="folder", root="p", queries="q", training="t").source_parts == (
        "references",
        "queries",
        "training",
    )
    assert Folder(kind="folder", root="p", training="t").source_parts == ("references", "training")


def test_training_images_are_neither_references_nor_queries():
    put("photos/a.png", "queries/q.png", "more/a.png")

    assert message(training="./photos") == (
        "datasets.mine.training: './photos' is also the root. Move the training images to a separate folder."
    )
    assert message(queries="queries", training="queries") == (
        "datasets.mine.training: 'queries' is also the folder of queries. "
        "Move the training images to a separate folder."
    )
    assert message(training="more") == (
        "datasets.mine.training: 'a.png' is both in root ('photos') and in training ('more'), and every id, the path "
        "inside its folder, must be unique. Rename one of the two, or move all training images into a sub-folder of "
        "'more'."
    )
    assert message(training="none") == f"datasets.mine.training: the folder 'none' does not exist. {CHECK_THE_PATH}"


# --- truth ---


@pytest.mark.parametrize(
    "text",
    [
        "query_id,reference_id\nq1.png,a.png\nq1.png,b.png\n",
        "reference_id,query_id\na.png,q1.png\nb.png,q1.png\n",
        'query_id,reference_id\r\n"q1.png",a.png\r\n\r\nq1.png,b.png\r\nq2.png,\r\n,\r\n',
        "\ufeffquery_id,reference_id\nq1.png,a.png\nq1.png,b.png",
    ],
    ids=["plain", "columns the other way", "quotes, blank lines, no match", "as spreadsheets save it"],
)
def test_truth_is_read(text):
    _, truth = sample(**with_truth(text))

    assert truth == [
        {"query_id": "q1.png", "reference_id": "a.png"},
        {"query_id": "q1.png", "reference_id": "b.png"},
    ]


def test_ids_that_look_like_numbers_stay_text():
    put("photos/007.png", "queries/1e5.png")
    Path("truth.csv").write_text("query_id,reference_id\n1e5.png,007.png\n")

    _, truth = sample(queries="queries", truth="truth.csv")

    assert truth == [{"query_id": "1e5.png", "reference_id": "007.png"}]


def test_truth_without_queries():
    put("photos/a.png")

    assert message(truth="truth.csv") == (
        "datasets.mine.truth: requires queries. Set 'queries' to their folder, or remove 'truth'."
    )


def test_a_missing_truth_file():
    entry = with_truth("") | {"truth": "thruth.csv"}

    assert message(**entry) == f"datasets.mine.truth: the file 'thruth.csv' does not exist. {CHECK_THE_PATH}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "query_id,reference\nq1.png,a.png\n",
            "line 1: unknown column 'reference'. Did you mean 'reference_id'? "
            "The first line must be: query_id,reference_id",
        ),
        (
            "query_id;reference_id\n",
            "line 1: unknown column 'query_id;reference_id'. Did you mean 'reference_id'? "
            "The first line must be: query_id,reference_id",
        ),
        ("query_id\nq1.png\n", "line 1: has the columns 'query_id'. The first line must be: query_id,reference_id"),
        ("", "line 1: has the columns ''. The first line must be: query_id,reference_id"),
        (
            "query_id,reference_id\nq1.png,a.png\nq3.png,a.png\n",
            "line 3: query_id 'q3.png' is not in queries. Did you mean 'q2.png'?",
        ),
        (
            "query_id,reference_id\n\nq1.png,a.jpg\n",
            "line 3: reference_id 'a.jpg' is not in root. Did you mean 'a.png'?",
        ),
        (
            "query_id,reference_id\nq1.png,elephant-in-the-room\n",
            "line 2: reference_id 'elephant-in-the-room' is not in root. "
            "Ids are paths inside 'photos', for example 'a.png'.",
        ),
        (
            "query_id,reference_id\nq1.png,a.png\nq1.png,a.png\n",
            "line 3: duplicates line 2. Delete one of the two.",
        ),
        (
            "query_id,reference_id\nq1.png,a.png\nq1.png,\n",
            "'q1.png' has a match in line 2, and none in line 3. Delete one of the two.",
        ),
        (
            "query_id,reference_id\nq1.png,a,b.png\n",
            "line 2: has 3 cells, expected 2. Put names that contain a comma in double quotes.",
        ),
        ('query_id,reference_id\nq1.png,"a.png', "line 2: is not valid CSV (unexpected end of data). Fix this line."),
    ],
)
def test_what_is_wrong_with_truth_is_named_by_line(text, expected):
    separator = ", " if expected.startswith("line") else ": "
    assert message(**with_truth(text)) == f"datasets.mine.truth: truth.csv{separator}{expected}"


def test_a_name_in_another_unicode_form_is_told_apart_from_a_typo():
    put("photos/a.png", "queries/o\u0308.png")  # as macOS writes it
    Path("truth.csv").write_text("query_id,reference_id\n\u00f6.png,a.png\n", encoding="utf-8")

    text = message(queries="queries", truth="truth.csv")

    assert "query_id '\u00f6.png' is not in queries. 'o\u0308.png' looks the same, but is written with other" in text


def test_truth_that_is_not_utf8():
    text = "query_id,reference_id\nq1.png,ü.png\n".encode("latin-1")

    assert message(**with_truth(text)) == ("datasets.mine.truth: truth.csv is not UTF-8 text. Save it as CSV (UTF-8).")


# --- what else is known of the images ---


def with_about(text):
    Path("about.csv").write_text(text)
    return with_truth("query_id,reference_id\nq1.png,a.png\n", about="about.csv")


def test_columns_about_images_are_brought_along():
    images, _ = sample(**with_about("camera,image_id,place\nold,q1.png,shop\nnew,a.png,\n"))
    known = {row["image_id"]: (row["by_camera"], row["by_place"]) for row in images}
    assert known == {"a.png": ("new", None), "b.png": (None, None), "q1.png": ("old", "shop"), "q2.png": (None, None)}


def test_scenes_are_no_breakdown():
    images, _ = sample(**with_about("image_id,scene\nq1.png,cake\na.png,cake\n"))
    assert {row["image_id"]: row["scene"] for row in images} == {
        **{"a.png": "cake", "b.png": None},
        **{"q1.png": "cake", "q2.png": None},
    }
    assert not any("by_scene" in row for row in images)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("camera,image_id\nold,q3.png\n", "line 2: image_id 'q3.png' is in none of the folders. Did you mean 'q2.png'"),
        ("camera,image_id\nold,q1.png\nnew,q1.png\n", "line 3: 'q1.png' is in line 2 already. Delete one."),
        ("camera,id\nold,q1.png\n", "has the columns 'camera,id'. The first line must name image_id and at least one"),
        ("image_id\nq1.png\n", "has the columns 'image_id'. The first line must name image_id and at least one more"),
        ("image_id,a,a\nq1.png,1,2\n", "has the columns 'image_id,a,a'"),
        ("image_id,\nq1.png,1\n", "has the columns 'image_id,'"),
    ],
)
def test_a_table_about_images_that_does_not_fit_is_refused(text, said):
    assert said in message(**with_about(text))
    assert message(**with_about(text)).startswith("datasets.mine.about: about.csv")


def test_a_missing_table_about_images_is_named():
    assert "datasets.mine.about: the file 'none.csv' does not exist" in message(
        **{**with_about("image_id,a\n"), "about": "none.csv"}
    )


def sampled(**entry):
    return {row["image_id"] for row in sample(**entry)[0] if row["reference"]}


def test_a_sample_is_stable_and_a_larger_one_contains_the_smaller(caplog):
    put(*(f"photos/p{number}.png" for number in range(30)))
    with caplog.at_level(logging.INFO):
        few, more = sampled(sample=8), sampled(sample=20)
    assert "datasets.mine.sample: 8 of 30 references are sampled" in caplog.text
    assert (len(few), len(more)) == (8, 20)
    assert few < more < sampled() == sampled(sample=30) == sampled(sample=500)
    assert few != set(sorted(more)[:8]), "not the first by name"
    put("photos/another.png")
    assert len(sampled(sample=8) - few) <= 1


def test_a_sample_keeps_what_the_queries_ask_for():
    put(*(f"photos/p{number}.png" for number in range(30)), "queries/a.png", "queries/b.png", "queries/c.png")
    Path("truth.csv").write_text("query_id,reference_id\na.png,p7.png\nb.png,p8.png\nb.png,p9.png\n")
    with_truth = {"queries": "queries", "truth": "truth.csv"}
    rows, matches = sample(sample=5, **with_truth)
    assert {"p7.png", "p8.png", "p9.png"} <= sampled(sample=5, **with_truth)
    assert (len(sampled(sample=5, **with_truth)), len(rows), len(matches)) == (5, 8, 3)
    assert message(sample=2, **with_truth) == (
        "datasets.mine.sample: is 2, but 3 references are true matches of queries. Set sample to 3 or more."
    )
