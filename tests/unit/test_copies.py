import hashlib
import io
import itertools
import json
import logging
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageFont

from conftest import largest_file
from lookalike.config.datasets import OPERATIONS, Copies
from lookalike.io import archives, content_hashes, images
from lookalike.io.formats.tables import IMAGES, MANIFEST
from lookalike.job.errors import LookalikeError
from lookalike.sample import copies, copy_operations, copy_recipes
from lookalike.sample.copy_recipes import RANGES, STRENGTHS, Draw
from lookalike.sample.make_images import Album

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def noise(width=64, height=48, seed=0):
    """A picture of colored blobs: with detail, and not symmetric."""
    numbers = np.random.default_rng(seed).integers(0, 256, (max(1, height // 4), max(1, width // 4), 3), np.uint8)
    return Image.fromarray(numbers).resize((width, height), Image.Resampling.BICUBIC)


def sources(number=30, broken=(), groups=None):
    """An IMAGES table of ``number`` pictures in pictures/, those in ``broken`` undecodable."""
    Path("pictures").mkdir(exist_ok=True)
    rows = []
    for index in range(number):
        name = f"{index:03d}.png"
        file = Path("pictures", name)
        if index in broken:
            file.write_bytes(b"no picture")
        else:
            noise(seed=index).save(file)
        group = groups[index] if groups else None
        rows.append(
            {"image_id": name, "reference": True, "query": False, "training": False}
            | {"root": "pictures", "path": name, "bytes": file.stat().st_size, "group": group}
            | {"content_hash": content_hashes.of_file(file)}
        )
    return pa.Table.from_pylist(rows, schema=IMAGES.schema("content_hash"))


def looked_again(table):
    """The table as sampling would make it now, after its files were changed."""
    rows = table.to_pylist()
    for row in rows:
        file = Path(row["root"], row["path"])
        row |= {"bytes": file.stat().st_size, "content_hash": content_hashes.of_file(file)}
    return pa.Table.from_pylist(rows, schema=table.schema)


def make(table, folder="results/copies/images", **entry):
    with Album([f"{folder}/queries-00000.zip"]) as album:
        manifest = copies.make_images(Copies(kind="copies", of="pictures", **entry), table, album)
        album.pack()
    return MANIFEST.check(manifest, "the manifest").to_pylist()


def queries(rows):
    return [row for row in rows if row["query"]]


def ids(rows):
    return [row["image_id"] for row in rows]


def hashes(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(Path(folder).iterdir())}


def made(folder):
    """The copies in a folder's archive, by name."""
    archive = Path(folder, "queries-00000.zip")
    return {one.name: archives.read(archive, one.name) for one in archives.members(archive)}


def order(rows, seed=0):
    return sorted(rows, key=lambda image_id: hashlib.sha256(f"{seed}:{image_id}".encode()).hexdigest())


# --- what the table says ---


def test_training_pictures_stay_what_they_are():
    table = sources(12).to_pylist()
    for row in table[8:]:
        row |= {"reference": False, "training": True}
    table[7] |= {"reference": False, "query": True}

    rows = make(pa.Table.from_pylist(table, schema=IMAGES.schema("content_hash")), queries=20)

    training = [row for row in rows if row["training"]]
    assert ids(training) == [row["image_id"] for row in table[8:]]
    assert not any(row["reference"] or row["query"] or row["source"] for row in training)
    assert {row["source"] for row in queries(rows)} <= set(ids(row for row in rows if row["reference"]))


def test_every_copy_has_its_match_and_a_file_of_the_size_that_it_says():
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


def test_references_are_those_of_the_sources_as_they_are():
    table = sources(30)

    rows = make(table, queries=5, operations=("crop",))

    columns = [*IMAGES.columns, "content_hash"]
    references = [row for row in rows if not row["query"]]
    assert [{name: row[name] for name in columns} for row in references] == table.to_pylist()
    assert {(row["source"], row["operations"], row["parameters"]) for row in references} == {(None, None, None)}


def test_a_copy_is_like_its_source_in_what_the_data_set_brings():
    table = sources()
    cameras = {image_id: ("old", "new")[row % 2] for row, image_id in enumerate(table["image_id"].to_pylist())}
    rows = make(table.append_column("by_camera", pa.array(list(cameras.values()))), queries=5)
    assert {row["image_id"]: row["by_camera"] for row in rows if row["reference"]}.items() <= cameras.items()
    assert all(row["by_camera"] == cameras[row["source"]] for row in queries(rows))


def test_queries_of_the_sources_are_not_copied():
    table = sources(10)
    roles = pa.array([index < 5 for index in range(10)])
    table = table.set_column(1, "reference", roles).set_column(
        2, "query", pa.array([index >= 5 for index in range(10)])
    )

    rows = make(table, queries=20, operations=("blur",))

    assert {row["source"] for row in queries(rows)} == {f"00{index}.png" for index in range(5)}
    assert sum(row["reference"] for row in rows) == 5


def test_copies_of_dependent_pictures_are_in_one_group_and_others_in_their_sources():
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


def test_the_order_of_the_sources_and_of_the_settings_changes_nothing():
    table = sources()

    make(table, "a", queries=10, operations=("crop", "text"), strengths=("light", "heavy"))
    backwards = table.take(list(range(table.num_rows))[::-1])
    make(backwards, "b", queries=10, operations=("text", "crop"), strengths=("heavy", "light"))

    assert hashes("a") == hashes("b")


def test_another_seed_gives_other_copies():
    table = sources()

    make(table, "a", queries=10)
    make(table, "b", queries=10, seed=1)

    assert not set(made("a")) & set(made("b"))


def test_more_queries_keep_the_first_ones():
    table = sources()

    few = queries(make(table, "a", queries=10, without_match=4))
    many = queries(make(table, "b", queries=70, without_match=4))

    assert ids(few)[:10] == ids(many)[:10]
    assert ids(few)[10:] == ids(many)[70:]
    assert made("a").items() <= made("b").items()


def test_a_grown_folder_keeps_most_copies():
    few = ids(queries(make(sources(100), "a", queries=50)))
    more = ids(queries(make(sources(105), "b", queries=50)))

    assert len(set(few) & set(more)) >= 40


def test_an_id_stands_for_the_picture():
    table = sources()
    before = {row["source"]: row for row in queries(make(table, "a", queries=20, operations=("crop", "flip")))}
    noise(seed=99).save("pictures/000.png")
    after = {
        row["source"]: row for row in queries(make(looked_again(table), "b", queries=20, operations=("crop", "flip")))
    }

    changed = [source for source in before if before[source]["image_id"] != after[source]["image_id"]]
    assert changed == [source for source in before if source == "000.png"]


def test_a_source_that_changed_since_it_was_sampled_is_not_copied():
    table = sources(5)
    data = bytearray(Path("pictures/003.png").read_bytes())
    data[-1] ^= 1  # of the same size, and it still decodes
    Path("pictures/003.png").write_bytes(data)

    with pytest.raises(LookalikeError, match=r"^of: pictures/003\.png: has changed since .*: --forcerun sample$"):
        make(table, queries=5)


def test_max_side_changes_the_ids_of_the_copies_that_it_changes():
    table = sources()
    few = make(table, "a", queries=20, max_side=32)
    many = make(table, "b", queries=20)

    assert not set(ids(queries(few))) & set(ids(queries(many)))


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


# --- pictures that are kept out ---


@pytest.mark.parametrize(("without_match", "kept_out"), [(0, 3), (2, 3), (7, 7)])
def test_what_is_kept_out_is_no_reference(without_match, kept_out):
    rows = make(sources(30), queries=100, without_match=without_match)

    references = {row["image_id"] for row in rows if row["reference"]}
    ranked = order(f"{index:03d}.png" for index in range(30))
    assert references == set(ranked[:-kept_out])
    used = {
        step["background"]
        for row in queries(rows)
        for step in json.loads(row["parameters"])["steps"]
        if "background" in step
    }
    assert used
    assert used <= set(ranked[-kept_out:])
    unmatched = [row["group"] for row in queries(rows) if row["source"] is None]
    assert unmatched == ranked[::-1][:without_match]


def test_nothing_is_kept_out_where_nothing_is_pasted():
    rows = make(sources(30), queries=5, operations=("crop", "blur"))

    assert sum(row["reference"] for row in rows) == 30


def test_a_few_pictures_are_pasted_onto_a_plain_color():
    rows = queries(make(sources(5), queries=5, operations=("paste",)))

    steps = [step for row in rows for step in json.loads(row["parameters"])["steps"]]
    assert all("color" in step and "background" not in step for step in steps)


def test_no_picture_is_pasted_into_itself():
    rows = queries(make(sources(30), queries=1, without_match=10, operations=("paste",)))

    for row in rows:
        (step,) = json.loads(row["parameters"])["steps"]
        assert step["background"] != row["group"]


def test_too_many_to_keep_out():
    with pytest.raises(LookalikeError) as error:
        make(sources(12), without_match=30)

    assert str(error.value) == (
        "without_match: 30 pictures are to be kept out, but the data set has only 12. "
        "Lower without_match, or add pictures: at least one must stay as a reference."
    )


def test_too_few_decodable_ones_to_keep_out():
    with pytest.raises(
        LookalikeError, match=r"^without_match: 5 pictures are to be kept out, but of 8 only [123] can be"
    ):
        make(sources(8, broken=range(5)), without_match=5)


def test_no_references():
    with pytest.raises(LookalikeError, match=r"^of: that data set has no references to copy"):
        make(sources(1).slice(0, 0))


# --- undecodable pictures ---


def test_an_undecodable_source_is_logged_and_the_next_one_taken(caplog):
    broken = int(order(f"{index:03d}.png" for index in range(30))[0][:3])

    rows = make(sources(30, broken=[broken]), queries=27)

    assert f"{broken:03d}.png is not copied, the next picture is taken instead: is text, not an image" in caplog.text
    assert len(queries(rows)) == 27
    assert f"{broken:03d}.png" not in {row["source"] for row in rows}
    assert f"{broken:03d}.png" in {row["image_id"] for row in rows if row["reference"]}


def test_an_undecodable_picture_is_not_kept_out_but_left_to_be_rejected():
    ranked = order(f"{index:03d}.png" for index in range(30))
    last = int(ranked[-1][:3])

    rows = make(sources(30, broken=[last]), queries=5, without_match=2, operations=("crop",))

    assert [row["group"] for row in queries(rows) if row["source"] is None] == [ranked[-2], ranked[-3]]
    assert ranked[-1] in {row["image_id"] for row in rows if row["reference"]}


def test_nothing_can_be_decoded():
    first = order(f"00{index}.png" for index in range(5))[0]

    with pytest.raises(LookalikeError) as error:
        make(sources(5, broken=range(5)), queries=3)

    assert str(error.value) == (
        f"of: none of the 5 references that were tried can be decoded; the first: {first}: "
        "is text, not an image. Mend or replace the pictures."
    )


# --- recipes ---


def drawn(number=300, operations=OPERATIONS, strengths=STRENGTHS, chains=0.3):
    return [copy_recipes.draw_steps(Draw(0, 0, index), operations, strengths, chains) for index in range(number)]


def test_only_what_the_configuration_allows_is_done():
    rows = queries(make(sources(), queries=60, operations=("crop", "jpeg", "flip"), strengths=("light", "heavy")))

    done = {part for row in rows for part in row["operations"].split(" + ")}
    assert done == {"crop:light", "crop:heavy", "jpeg:light", "jpeg:heavy", "flip"}


def test_what_is_recorded_is_what_was_done():
    for row in queries(make(sources(), queries=40, chains=0.5)):
        assert row["operations"] == copy_recipes.describe(json.loads(row["parameters"])["steps"])


def test_every_operation_and_strength_comes_up():
    done = {copy_recipes.describe([step]) for steps in drawn(chains=1) for step in steps}

    without_strength = {"flip", "grey"}
    strong = set(OPERATIONS) - without_strength
    assert done == {f"{name}:{strength}" for name in strong for strength in STRENGTHS} | without_strength


@pytest.mark.parametrize(("chains", "lengths"), [(0, {1}), (1, {2, 3}), (0.5, {1, 2, 3})])
def test_chains_have_two_or_three_different_operations(chains, lengths):
    steps = drawn(chains=chains)

    assert {len(one) for one in steps} == lengths
    assert all(len({step["operation"] for step in one}) == len(one) for one in steps)


def test_chains_is_the_share_of_the_copies_that_have_one():
    assert np.mean([len(one) > 1 for one in drawn(2000, chains=0.3)]) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(("allowed", "length"), [(("crop",), 1), (("crop", "flip"), 2)])
def test_a_chain_is_no_longer_than_the_operations_allow(allowed, length):
    assert {len(one) for one in drawn(operations=allowed, chains=1)} == {length}


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_draw_is_within_its_range(operation, strength):
    for number in range(50):
        step = copy_recipes.draw_step(Draw(number), operation, strength)
        for one in RANGES[operation]:
            low, high = one.at(strength)
            assert low <= step[one.name] <= high
            assert type(step[one.name]) is type(low)
        assert json.loads(json.dumps(step)) == step


def test_stronger_means_further_from_the_picture_and_ranges_meet_at_most_at_their_ends():
    for one in itertools.chain(*RANGES.values()):
        light, medium, heavy = one.light, one.medium, one.heavy
        rising = light[1] <= medium[1] <= heavy[1] and light[0] <= medium[0] <= heavy[0]
        falling = light[0] >= medium[1] and medium[0] >= heavy[1]
        assert rising or falling, one


def test_a_recipe_stays_as_it_is_with_every_version_of_python():
    # Should this change, every copy of every user changes, and with them their results.
    step = copy_recipes.draw_step(Draw(0, 0, "a.jpg"), "crop", "medium")

    assert step == {"operation": "crop", "strength": "medium", "kept": 0.4544, "x": 0.9347, "y": 0.8925}


# --- operations ---


def altered(image, step, background=None, max_side=1024):
    return copy_operations.apply(image, [step], max_side, background)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_at_every_strength_changes_the_picture(operation, strength):
    for number in range(5):
        image = noise(seed=number)
        before = image.tobytes()

        after = altered(image, copy_recipes.draw_step(Draw(number), operation, strength))

        assert image.tobytes() == before, "the picture that was given must stay as it was"
        assert after.mode == "RGB"
        assert after.size != image.size or after.tobytes() != before


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (20, 20), (3, 2000), (2000, 3), (1, 5000)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_odd_pictures_break_nothing(operation, size):
    for strength in STRENGTHS:
        for background in (None, noise(), noise(1, 1)):
            after = altered(
                noise(*size), copy_recipes.draw_step(Draw(size), operation, strength), background, max_side=256
            )

            assert min(after.size) >= 1
            assert max(after.size) <= 256


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_pictures_of_any_mode_are_copied(mode):
    table = sources(1)
    deep = Image.fromarray(np.asarray(noise().convert("L"), np.uint16) * 257)
    image = deep if mode == "I;16" else noise().convert(mode)
    image.save("pictures/000.png", format="TIFF" if mode == "CMYK" else "PNG")

    assert len(queries(make(looked_again(table), queries=20))) == 20


def test_copies_are_scaled_down_to_max_side():
    table = sources(1)
    noise(640, 300).save("pictures/000.png")

    for row in queries(make(looked_again(table), queries=40, max_side=64)):
        with Image.open(io.BytesIO(images.read_row(row))) as copy:
            assert max(copy.size) <= 64


def test_small_pictures_are_not_scaled_up():
    assert copy_operations.scaled_down(noise(20, 10), 64).size == (20, 10)
    assert copy_operations.scaled_down(noise(200, 100), 64).size == (64, 32)


def test_a_crop_keeps_the_share_that_it_says_and_lies_inside():
    image = noise(400, 300)
    for number in range(20):
        step = copy_recipes.draw_step(Draw(number), "crop", "heavy")

        after = altered(image, step)

        assert after.width * after.height / (400 * 300) == pytest.approx(step["kept"], rel=0.02)
        left, top = round(step["x"] * (400 - after.width)), round(step["y"] * (300 - after.height))
        assert after.tobytes() == image.crop((left, top, left + after.width, top + after.height)).tobytes()


def test_a_pasted_picture_is_whole_and_covers_the_share_that_it_says():
    image, background = noise(80, 60), noise(300, 300, seed=1)
    for number in range(20):
        step = copy_recipes.draw_step(Draw(number), "paste", "medium")

        after = altered(image, step, background)

        left, top = round(step["x"] * (after.width - 80)), round(step["y"] * (after.height - 60))
        assert after.crop((left, top, left + 80, top + 60)).tobytes() == image.tobytes()
        assert 80 * 60 / (after.width * after.height) == pytest.approx(step["covers"], rel=0.05)


def test_shapes_cover_at_most_the_share_that_they_say():
    black = Image.new("RGB", (300, 200))
    for number in range(20):
        step = copy_recipes.draw_step(Draw(number), "shapes", "heavy")
        for shape in step["shapes"]:
            shape["color"] = [255, 255, 255]

        covered = (np.asarray(altered(black, step))[:, :, 0] > 0).mean()

        assert 0 < covered <= step["covers"] * 1.05


def test_a_flip_is_a_mirror_image():
    image = noise()

    after = altered(image, copy_recipes.draw_step(Draw(0), "flip", "heavy"))

    np.testing.assert_array_equal(np.asarray(after), np.asarray(image)[:, ::-1])


def test_a_grey_copy_keeps_the_shapes_and_loses_the_colors():
    image = noise()

    after = np.asarray(altered(image, copy_recipes.draw_step(Draw(0), "grey", "heavy")))

    assert np.ptp(after, axis=2).max() == 0 < np.ptp(np.asarray(image), axis=2).max()
    np.testing.assert_array_equal(after[..., 0], np.asarray(image.convert("L")))


def test_text_shows_on_any_picture():
    for color, number in itertools.product(("black", "white", "grey"), range(10)):
        image = Image.new("RGB", (200, 150), color)

        assert altered(image, copy_recipes.draw_step(Draw(number), "text", "light")).tobytes() != image.tobytes()


def test_the_font_comes_with_pillow_and_no_font_of_the_system_is_looked_up(monkeypatch):
    monkeypatch.setattr(os, "walk", None)  # how Pillow looks for fonts
    opened = []
    truetype = ImageFont.truetype
    monkeypatch.setattr(
        ImageFont, "truetype", lambda font, *rest, **more: opened.append(font) or truetype(font, *rest, **more)
    )

    font = copy_operations.font(24)

    assert isinstance(font, ImageFont.FreeTypeFont)
    assert font.getname() == ("Aileron", "Regular")
    assert font.size == 24
    assert [type(one) for one in opened] == [io.BytesIO]


# --- logs and docs ---


def test_the_log_says_how_many_are_made_and_kept_out(caplog):
    with caplog.at_level(logging.INFO):
        make(sources(10), queries=10, without_match=2)

    assert "2 of 10 pictures are kept out of the references" in caplog.text
    assert "made 12 of 12 copies" in caplog.text


def span(ends):
    low, high = ends
    return f"{low}" if low == high else f"{low} to {high}"


def test_the_docs_show_the_ranges_of_every_operation():
    page = (DOCS / "copies.md").read_text(encoding="utf-8")

    rows = {
        f"| `{operation}` | `{one.name}`: {one.meaning} | {span(one.light)} | {span(one.medium)} | {span(one.heavy)} |"
        for operation, ranges in RANGES.items()
        for one in ranges
    }
    shown = {line for line in page.splitlines() if line.startswith("| `")}
    without_range = {line for line in shown if " | nothing: " in line}
    assert shown - without_range == rows
    assert {line.split("`")[1] for line in without_range} == {name for name, ranges in RANGES.items() if not ranges}


def test_a_disk_that_is_full_is_said_of_the_file_that_did_not_fit():
    table = sources()
    with (
        largest_file(200),
        pytest.raises(LookalikeError, match=r"^results/copies/images/\S+\.(jpg|zip): cannot be written"),
    ):
        make(table)
