"""Copies: which references are copied and held out, what the table records, and what stays the same."""

import hashlib
import io
import itertools
import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from test_copy_operations import noise

from conftest import largest_file
from lookalike.config.datasets import Copies
from lookalike.io import archives, content_hashes, images
from lookalike.io.formats.tables import IMAGES, MANIFEST
from lookalike.io.in_work import Guard
from lookalike.job.errors import LookalikeError
from lookalike.sample import copies, copy_recipes
from lookalike.sample.make_images import Album


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def sources(number=30, broken=(), groups=None):
    """An IMAGES table of ``number`` images in photos/, those in ``broken`` undecodable."""
    Path("photos").mkdir(exist_ok=True)
    rows = []
    for index in range(number):
        name = f"{index:03d}.png"
        file = Path("photos", name)
        if index in broken:
            file.write_bytes(b"no image")
        else:
            noise(seed=index).save(file)
        group = groups[index] if groups else None
        rows.append(
            {"image_id": name, "reference": True, "query": False, "training": False}
            | {"root": "photos", "path": name, "bytes": file.stat().st_size, "group": group}
            | {"content_hash": content_hashes.of_file(file)}
        )
    return pa.Table.from_pylist(rows, schema=IMAGES.schema("content_hash"))


def sampled_again(table):
    """The table as sampling would write it now, after its files were changed."""
    rows = table.to_pylist()
    for row in rows:
        file = Path(row["root"], row["path"])
        row |= {"bytes": file.stat().st_size, "content_hash": content_hashes.of_file(file)}
    return pa.Table.from_pylist(rows, schema=table.schema)


def make(table, folder="results/copies/images", **entry):
    with Album([f"{folder}/queries-00000.zip"]) as album:
        manifest = copies.make_images(Copies(kind="copies", of="photos", **entry), table, album, Guard())
        album.pack()
    return MANIFEST.check(manifest, "the manifest").to_pylist()


def queries(rows):
    return [row for row in rows if row["query"]]


def ids(rows):
    return [row["image_id"] for row in rows]


def hashes(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(Path(folder).iterdir())}


def packed(folder):
    """The copies in a folder's archive, by name."""
    archive = Path(folder, "queries-00000.zip")
    return {member.name: archives.read(archive, member.name) for member in archives.members(archive)}


def order(rows, seed=0):
    return sorted(rows, key=lambda image_id: hashlib.sha256(f"{seed}:{image_id}".encode()).hexdigest())


# --- what the table says ---


def test_training_images_keep_their_role():
    table = sources(12).to_pylist()
    for row in table[8:]:
        row |= {"reference": False, "training": True}
    table[7] |= {"reference": False, "query": True}

    rows = make(pa.Table.from_pylist(table, schema=IMAGES.schema("content_hash")), queries=20)

    training = [row for row in rows if row["training"]]
    assert ids(training) == [row["image_id"] for row in table[8:]]
    assert not any(row["reference"] or row["query"] or row["source"] for row in training)
    assert {row["source"] for row in queries(rows)} <= set(ids(row for row in rows if row["reference"]))


def test_every_copy_has_its_match_and_a_file_of_the_recorded_size():
    table = sources()

    rows = make(table, queries=20, without_match=3)

    copied = queries(rows)
    references = {row["image_id"]: row for row in rows if row["reference"]}
    assert len(copied) == 23
    assert sum(row["source"] is None for row in copied) == 3
    assert {row["source"] for row in copied} - {None} <= set(references)
    for row in copied:
        data = images.read_row(row)
        assert row["root"] == "results/copies/images"
        assert len(data) == row["bytes"]
        assert Image.open(io.BytesIO(data)).format == "JPEG"
        assert (row["reference"], row["training"]) == (False, False)


def test_references_are_those_of_the_sources_unchanged():
    table = sources(30)

    rows = make(table, queries=5, operations=("crop",))

    columns = [*IMAGES.columns, "content_hash"]
    references = [row for row in rows if not row["query"]]
    assert [{name: row[name] for name in columns} for row in references] == table.to_pylist()
    assert {(row["source"], row["operations"], row["parameters"]) for row in references} == {(None, None, None)}


@pytest.mark.parametrize("column", ["by_camera", "scene"])
def test_a_copy_has_its_sources_values_of_the_breakdowns_and_its_scene(column):
    table = sources()
    values = {image_id: ("old", "new")[row % 2] for row, image_id in enumerate(table["image_id"].to_pylist())}
    rows = make(table.append_column(column, pa.array(list(values.values()))), queries=5)
    assert {row["image_id"]: row[column] for row in rows if row["reference"]}.items() <= values.items()
    assert all(row[column] == values[row["source"]] for row in queries(rows))


def test_queries_of_the_sources_are_not_copied():
    table = sources(10)
    roles = pa.array([index < 5 for index in range(10)])
    table = table.set_column(1, "reference", roles).set_column(
        2, "query", pa.array([index >= 5 for index in range(10)])
    )

    rows = make(table, queries=20, operations=("blur",))

    assert {row["source"] for row in queries(rows)} == {f"00{index}.png" for index in range(5)}
    assert sum(row["reference"] for row in rows) == 5


def test_copies_of_images_in_one_group_are_in_it_and_others_in_their_sources():
    rows = queries(make(sources(4, groups=["cat", "cat", None, None]), queries=4, operations=("blur",)))

    assert {row["source"]: row["group"] for row in rows} == {
        "000.png": "cat",
        "001.png": "cat",
        "002.png": "002.png",
        "003.png": "003.png",
    }


# --- seeds and stability ---


def test_the_same_seed_gives_the_same_bytes():
    table = sources()

    first, again = (make(table, folder, queries=25, without_match=5) for folder in ("a", "b"))

    assert hashes("a") == hashes("b")
    assert [row | {"root": ""} for row in queries(first)] == [row | {"root": ""} for row in queries(again)]


def test_the_order_of_the_sources_and_of_the_settings_does_not_matter():
    table = sources()

    make(table, "a", queries=10, operations=("crop", "text"), strengths=("light", "heavy"))
    backwards = table.take(list(range(table.num_rows))[::-1])
    make(backwards, "b", queries=10, operations=("text", "crop"), strengths=("heavy", "light"))

    assert hashes("a") == hashes("b")


def test_another_seed_gives_other_copies():
    table = sources()

    make(table, "a", queries=10)
    make(table, "b", queries=10, seed=1)

    assert not set(packed("a")) & set(packed("b"))


def test_more_queries_keep_the_first_ones():
    table = sources()

    first = queries(make(table, "a", queries=10, without_match=4))
    more = queries(make(table, "b", queries=70, without_match=4))

    assert ids(first)[:10] == ids(more)[:10]
    assert ids(first)[10:] == ids(more)[70:]
    assert packed("a").items() <= packed("b").items()


def test_a_grown_folder_keeps_most_copies():
    before = ids(queries(make(sources(100), "a", queries=50)))
    after = ids(queries(make(sources(105), "b", queries=50)))

    assert len(set(before) & set(after)) >= 40


def test_an_id_changes_with_the_image():
    table = sources()
    before = {row["source"]: row for row in queries(make(table, "a", queries=20, operations=("crop", "flip")))}
    noise(seed=99).save("photos/000.png")
    after = {
        row["source"]: row for row in queries(make(sampled_again(table), "b", queries=20, operations=("crop", "flip")))
    }

    changed = [source for source in before if before[source]["image_id"] != after[source]["image_id"]]
    assert changed == [source for source in before if source == "000.png"]


def test_a_source_that_changed_since_it_was_sampled_is_not_copied():
    table = sources(5)
    data = bytearray(Path("photos/003.png").read_bytes())
    data[-1] ^= 1  # of the same size, and it still decodes
    Path("photos/003.png").write_bytes(data)

    with pytest.raises(LookalikeError, match=r"^of: photos/003\.png: has changed since .*: --forcerun sample$"):
        make(table, queries=5)


def test_max_side_changes_the_ids_of_the_copies_that_it_changes():
    table = sources()
    scaled = make(table, "a", queries=20, max_side=32)
    unscaled = make(table, "b", queries=20)

    assert not set(ids(queries(scaled))) & set(ids(queries(unscaled)))


def test_more_queries_than_references_go_round_again():
    rows = queries(make(sources(5), queries=12, operations=("flip", "crop", "blur")))

    rounds = [json.loads(row["parameters"])["round"] for row in rows]
    assert rounds == [0] * 5 + [1] * 5 + [2] * 2
    assert [row["source"] for row in rows] == list(
        itertools.islice(itertools.cycle(order(f"00{i}.png" for i in range(5))), 12)
    )


def test_a_flip_in_every_round_still_has_ids_of_its_own():
    rows = queries(make(sources(3), queries=9, operations=("flip",)))

    assert len(set(ids(rows))) == 9


# --- held-out images ---


@pytest.mark.parametrize(("without_match", "held_out"), [(0, 3), (2, 3), (7, 7)])
def test_a_held_out_image_is_not_a_reference(without_match, held_out):
    rows = make(sources(30), queries=100, without_match=without_match)

    references = {row["image_id"] for row in rows if row["reference"]}
    ranked = order(f"{index:03d}.png" for index in range(30))
    assert references == set(ranked[:-held_out])
    used = {
        step["background"]
        for row in queries(rows)
        for step in json.loads(row["parameters"])["steps"]
        if "background" in step
    }
    assert used
    assert used <= set(ranked[-held_out:])
    unmatched = [row["group"] for row in queries(rows) if row["source"] is None]
    assert unmatched == ranked[::-1][:without_match]


def test_images_are_held_out_for_collages_too():
    rows = make(sources(), queries=5, operations=["collage"])
    backgrounds = {step["background"] for row in queries(rows) for step in json.loads(row["parameters"])["steps"]}
    assert backgrounds
    assert not backgrounds & {row["image_id"] for row in rows if row["reference"]}


def test_no_image_is_held_out_where_none_is_pasted():
    rows = make(sources(30), queries=5, operations=("crop", "blur"))

    assert sum(row["reference"] for row in rows) == 30


def test_images_of_a_small_data_set_are_pasted_onto_a_plain_color():
    rows = queries(make(sources(5), queries=5, operations=("paste",)))

    steps = [step for row in rows for step in json.loads(row["parameters"])["steps"]]
    assert all("color" in step and "background" not in step for step in steps)


def test_no_image_is_pasted_into_itself():
    rows = queries(make(sources(30), queries=1, without_match=10, operations=("paste",)))

    for row in rows:
        (step,) = json.loads(row["parameters"])["steps"]
        assert step["background"] != row["group"]


def test_too_many_to_hold_out_are_an_error():
    with pytest.raises(LookalikeError) as error:
        make(sources(12), without_match=30)

    assert str(error.value) == (
        "without_match: 30 images are to be held out, but the data set has only 12. "
        "Lower without_match, or add images: at least one must remain a reference."
    )


def test_too_few_decodable_images_to_hold_out_are_an_error():
    with pytest.raises(
        LookalikeError, match=r"^without_match: 5 images are to be held out, but of 8 only [123] can be"
    ):
        make(sources(8, broken=range(5)), without_match=5)


def test_a_source_without_references_is_an_error():
    with pytest.raises(LookalikeError, match=r"^of: that data set has no references to copy"):
        make(sources(1).slice(0, 0))


# --- undecodable images ---


def test_an_undecodable_source_is_logged_and_the_next_one_used(caplog):
    broken = int(order(f"{index:03d}.png" for index in range(30))[0][:3])

    rows = make(sources(30, broken=[broken]), queries=27)

    assert f"{broken:03d}.png is not copied, the next image is used instead: is text, not an image" in caplog.text
    assert len(queries(rows)) == 27
    assert f"{broken:03d}.png" not in {row["source"] for row in rows}
    assert f"{broken:03d}.png" in {row["image_id"] for row in rows if row["reference"]}


def test_an_undecodable_image_is_not_held_out_but_left_to_be_rejected():
    ranked = order(f"{index:03d}.png" for index in range(30))
    last = int(ranked[-1][:3])

    rows = make(sources(30, broken=[last]), queries=5, without_match=2, operations=("crop",))

    assert [row["group"] for row in queries(rows) if row["source"] is None] == [ranked[-2], ranked[-3]]
    assert ranked[-1] in {row["image_id"] for row in rows if row["reference"]}


def test_sources_that_cannot_be_decoded_are_an_error():
    first = order(f"00{index}.png" for index in range(5))[0]

    with pytest.raises(LookalikeError) as error:
        make(sources(5, broken=range(5)), queries=3)

    assert str(error.value) == (
        f"of: none of the 5 references that were tried can be decoded; the first: {first}: "
        "is text, not an image. Fix or replace the images."
    )


# --- what is done to an image ---


def test_only_configured_operations_are_applied():
    rows = queries(make(sources(), queries=60, operations=("crop", "jpeg", "flip"), strengths=("light", "heavy")))

    done = {part for row in rows for part in row["operations"].split(" + ")}
    assert done == {"crop:light", "crop:heavy", "jpeg:light", "jpeg:heavy", "flip"}


def test_the_description_is_that_of_the_steps():
    for row in queries(make(sources(), queries=40, chains=0.5)):
        assert row["operations"] == copy_recipes.describe(json.loads(row["parameters"])["steps"])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_images_of_any_mode_are_copied(mode):
    table = sources(1)
    deep = Image.fromarray(np.asarray(noise().convert("L"), np.uint16) * 257)
    image = deep if mode == "I;16" else noise().convert(mode)
    image.save("photos/000.png", format="TIFF" if mode == "CMYK" else "PNG")

    assert len(queries(make(sampled_again(table), queries=20))) == 20


def test_copies_are_scaled_down_to_max_side():
    table = sources(1)
    noise(640, 300).save("photos/000.png")

    for row in queries(make(sampled_again(table), queries=40, max_side=64)):
        with Image.open(io.BytesIO(images.read_row(row))) as copy:
            assert max(copy.size) <= 64


# --- logs ---


def test_the_log_says_how_many_are_made_and_held_out(caplog):
    with caplog.at_level(logging.INFO):
        make(sources(10), queries=10, without_match=2)

    assert "2 of 10 images are held out of the references" in caplog.text
    assert "made 12 of 12 copies" in caplog.text


def test_a_full_disk_is_reported_with_the_file_that_did_not_fit():
    table = sources()
    with (
        largest_file(200),
        pytest.raises(LookalikeError, match=r"^results/copies/images/\S+\.(jpg|zip): cannot be written"),
    ):
        make(table)
