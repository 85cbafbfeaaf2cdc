"""The operations of copies: what is drawn for them, and what they do to an image."""

import io
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from lookalike.config.datasets import DEFAULT_OPERATIONS, OPERATIONS, Copies
from lookalike.job.errors import LookalikeError
from lookalike.sample import copy_operations, copy_recipes, everyday_operations
from lookalike.sample.copy_recipes import RANGES, STRENGTHS, Draw

DOCS = Path(__file__).parents[2] / "docs"


def noise(width=64, height=48, seed=0):
    """An image of colored blobs: with detail, and not symmetric."""
    numbers = np.random.default_rng(seed).integers(0, 256, (max(1, height // 4), max(1, width // 4), 3), np.uint8)
    return Image.fromarray(numbers).resize((width, height), Image.Resampling.BICUBIC)


# --- recipes ---


def drawn(number=300, operations=OPERATIONS, strengths=STRENGTHS, chains=0.3):
    return [copy_recipes.draw_steps(Draw(0, 0, index), operations, strengths, chains) for index in range(number)]


def test_every_operation_and_strength_is_drawn():
    done = {copy_recipes.describe([step]) for steps in drawn(chains=1) for step in steps}

    without_strength = {"flip", "grey"}
    strong = set(OPERATIONS) - without_strength
    assert done == {f"{name}:{strength}" for name in strong for strength in STRENGTHS} | without_strength


@pytest.mark.parametrize(("chains", "lengths"), [(0, {1}), (1, {2, 3}), (0.5, {1, 2, 3})])
def test_chains_have_two_or_three_different_operations(chains, lengths):
    recipes = drawn(chains=chains)

    assert {len(steps) for steps in recipes} == lengths
    assert all(len({step["operation"] for step in steps}) == len(steps) for steps in recipes)


def test_chains_is_the_share_of_the_copies_that_have_one():
    assert np.mean([len(steps) > 1 for steps in drawn(2000, chains=0.3)]) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(("allowed", "length"), [(("crop",), 1), (("crop", "flip"), 2)])
def test_a_chain_is_no_longer_than_the_operations_allow(allowed, length):
    assert {len(steps) for steps in drawn(operations=allowed, chains=1)} == {length}


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_draw_is_within_its_range(operation, strength):
    for number in range(50):
        step = copy_recipes.draw_step(Draw(number), operation, strength)
        for drawn_range in RANGES[operation]:
            low, high = drawn_range.at(strength)
            assert low <= step[drawn_range.name] <= high
            assert type(step[drawn_range.name]) is type(low)
        assert json.loads(json.dumps(step)) == step


def test_stronger_means_further_from_the_image_and_ranges_meet_at_most_at_their_ends():
    for drawn_range in itertools.chain(*RANGES.values()):
        light, medium, heavy = drawn_range.light, drawn_range.medium, drawn_range.heavy
        rising = light[1] <= medium[1] <= heavy[1] and light[0] <= medium[0] <= heavy[0]
        falling = light[0] >= medium[1] and medium[0] >= heavy[1]
        assert rising or falling, drawn_range


def test_a_recipe_is_the_same_with_every_version_of_python():
    # Should this change, every copy of every user changes, and with them their results.
    step = copy_recipes.draw_step(Draw(0, 0, "a.jpg"), "crop", "medium")

    assert step == {"operation": "crop", "strength": "medium", "kept": 0.4544, "x": 0.9347, "y": 0.8925}


# --- operations ---


def altered(image, step, background=None, max_side=1024):
    return copy_operations.apply(image, [step], max_side, background)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_at_every_strength_changes_the_image(operation, strength):
    for number in range(5):
        image = noise(seed=number)
        before = image.tobytes()

        after = altered(image, copy_recipes.draw_step(Draw(number), operation, strength))

        assert image.tobytes() == before, "the input image must not be modified"
        assert after.mode == "RGB"
        assert after.size != image.size or after.tobytes() != before


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (20, 20), (3, 2000), (2000, 3), (1, 5000)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_images_of_extreme_sizes_are_altered_too(operation, size):
    for strength in STRENGTHS:
        for background in (None, noise(), noise(1, 1)):
            after = altered(
                noise(*size), copy_recipes.draw_step(Draw(size), operation, strength), background, max_side=256
            )

            assert min(after.size) >= 1
            assert max(after.size) <= 256


def test_small_images_are_not_scaled_up():
    assert copy_operations.scaled_down(noise(20, 10), 64).size == (20, 10)
    assert copy_operations.scaled_down(noise(200, 100), 64).size == (64, 32)


def test_a_crop_keeps_the_recorded_share_and_lies_inside():
    image = noise(400, 300)
    for number in range(20):
        step = copy_recipes.draw_step(Draw(number), "crop", "heavy")

        after = altered(image, step)

        assert after.width * after.height / (400 * 300) == pytest.approx(step["kept"], rel=0.02)
        left, top = round(step["x"] * (400 - after.width)), round(step["y"] * (300 - after.height))
        assert after.tobytes() == image.crop((left, top, left + after.width, top + after.height)).tobytes()


def test_a_pasted_image_is_whole_and_covers_the_recorded_share():
    image, background = noise(80, 60), noise(300, 300, seed=1)
    for number in range(20):
        step = copy_recipes.draw_step(Draw(number), "paste", "medium")

        after = altered(image, step, background)

        left, top = round(step["x"] * (after.width - 80)), round(step["y"] * (after.height - 60))
        assert after.crop((left, top, left + 80, top + 60)).tobytes() == image.tobytes()
        assert 80 * 60 / (after.width * after.height) == pytest.approx(step["covers"], rel=0.05)


def test_shapes_cover_at_most_the_recorded_share():
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


def test_text_is_visible_on_any_image():
    for color, number in itertools.product(("black", "white", "grey"), range(10)):
        image = Image.new("RGB", (200, 150), color)

        assert altered(image, copy_recipes.draw_step(Draw(number), "text", "light")).tobytes() != image.tobytes()


def test_the_font_comes_with_pillow_and_no_system_font_is_searched(monkeypatch):
    monkeypatch.setattr(os, "walk", None)  # how Pillow looks for fonts
    opened = []
    truetype = ImageFont.truetype
    monkeypatch.setattr(
        ImageFont, "truetype", lambda font, *args, **options: opened.append(font) or truetype(font, *args, **options)
    )

    font = copy_operations.font(24)

    assert isinstance(font, ImageFont.FreeTypeFont)
    assert font.getname() == ("Aileron", "Regular")
    assert font.size == 24
    assert [type(font) for font in opened] == [io.BytesIO]


def test_a_collage_has_the_image_whole_in_one_tile_and_parts_of_the_other_in_the_rest():
    image, background = noise(60, 40), Image.new("RGB", (200, 200), (10, 200, 30))
    for number in range(20):
        step = copy_recipes.draw_step(Draw(number), "collage", "heavy")
        pixels = np.asarray(altered(image, step, background))
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (40, 60, 3))[:, :, 0]
        assert (windows == np.asarray(image)).all(axis=(2, 3, 4)).sum() == 1
        others = (pixels == (10, 200, 30)).all(axis=2).sum()
        assert others == (step["tiles"] - 1) * 60 * 40


def test_a_screenshot_and_a_meme_keep_the_images_middle():
    image = noise(300, 200)
    for operation in ("screenshot", "meme"):
        for number in range(20):
            step = copy_recipes.draw_step(Draw(number), operation, "medium")
            after = np.asarray(altered(image, step))
            middle = np.asarray(image)[60:140, :]
            assert after.shape[0] > 200
            assert any((after[row : row + 80, :300] == middle).all() for row in range(after.shape[0] - 79))


def test_noise_has_the_recorded_spread_and_no_bias():
    image = Image.new("RGB", (300, 200), (128, 128, 128))
    step = copy_recipes.draw_step(Draw(0), "noise", "medium")
    difference = np.asarray(altered(image, step)).astype(float) - 128
    assert abs(difference.mean()) < 0.2
    assert difference.std() == pytest.approx(step["spread"], rel=0.02)


def test_a_photo_of_a_screen_has_the_image_between_the_drawn_corners():
    image = Image.new("RGB", (200, 100), (250, 250, 250))
    step = {"operation": "perspective", "tilt": 0.2, "lines": 0.0, "corners": [[1.0, 1.0], [0, 0], [0, 0], [0.5, 0]]}
    bright = np.asarray(altered(image, step))[:, :, 0] > 200
    assert bright[25, 50]  # the first corner is moved to (40, 20), the last to (20, 100)
    assert not bright[15, 20]
    assert bright[3, 197]
    assert bright[97, 30]
    assert not bright[97, 10]


def test_the_default_operations_are_those_of_the_first_version():
    assert Copies(kind="copies", of="x").operations == DEFAULT_OPERATIONS == OPERATIONS[:12]


def test_without_avif_the_remedy_is_in_the_message(monkeypatch):
    monkeypatch.setattr(everyday_operations.features, "check", lambda name: False)
    with pytest.raises(LookalikeError, match=r"^operations: .* cannot write AVIF\. Install Pillow from PyPI"):
        altered(noise(), copy_recipes.draw_step(Draw(0), "avif", "light"))


# --- docs ---


def span(ends):
    low, high = ends
    return f"{low}" if low == high else f"{low} to {high}"


def test_the_docs_show_the_ranges_of_every_operation():
    page = (DOCS / "copies.md").read_text(encoding="utf-8")

    rows = {
        f"| `{operation}` | `{drawn_range.name}`: {drawn_range.meaning} | "
        + " | ".join(span(ends) for ends in (drawn_range.light, drawn_range.medium, drawn_range.heavy))
        + " |"
        for operation, ranges in RANGES.items()
        for drawn_range in ranges
    }
    shown = {line for line in page.splitlines() if line.startswith("| `")}
    without_range = {line for line in shown if " | nothing: " in line}
    assert shown - without_range == rows
    assert {line.split("`")[1] for line in without_range} == {name for name, ranges in RANGES.items() if not ranges}
