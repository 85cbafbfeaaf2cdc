"""`lookalike duplicates` finds copies, keeps other shots apart, accounts for every file, and changes none."""

import csv
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner, Result

import lookalike as la
from conftest import REPOSITORY, made_image
from lookalike.cli.duplicate_search import calibration, defaults, reading
from lookalike.cli.duplicate_search.alignment import TURNS, Prepared, Verdict, compare, prepare
from lookalike.cli.duplicate_search.comparing import SURE, Pairs
from lookalike.cli.main import app
from lookalike.embed.models.hash import Hasher
from phone_folder import compressed, scene_canvas, take_shot

START = "from lookalike.cli.start import main; main()"
CRASHES = 43  # a height: tests/faulty
COPIES = {"resaved.webp", "small.jpg", "captioned.png", "mirrored.jpg", "cropped.jpg", "sub/Füße 日本.jpg"}
UNREADABLE = {"zero.jpg": "empty", "broken.jpg": "damaged", "huge.png": "pixels"}


def photograph(seed: int, size: tuple[int, int] = (400, 300)) -> Image.Image:
    return scene_canvas(np.random.default_rng(seed)).resize(size, Image.Resampling.LANCZOS)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT": zlib.compress(b""), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )


@pytest.fixture(scope="module", autouse=True)
def _home_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The vector store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One photograph with copies of every kind, shots of another scene, single images, and odd files."""
    folder = tmp_path_factory.mktemp("module") / "photos"
    (folder / "sub").mkdir(parents=True)
    first = photograph(0)
    first.save(folder / "a.jpg", quality=95)
    (folder / "sub" / "a.jpg").write_bytes((folder / "a.jpg").read_bytes())
    first.save(folder / "resaved.webp", quality=60)
    first.resize((240, 180), Image.Resampling.LANCZOS).save(folder / "small.jpg", quality=80)
    captioned = first.copy()
    ImageDraw.Draw(captioned).text((30, 250), "Happy birthday!", fill="white", font_size=30)
    captioned.save(folder / "captioned.png")
    first.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirrored.jpg", quality=85)
    first.crop((12, 9, 388, 291)).save(folder / "cropped.jpg", quality=85)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned to the right
    first.transpose(Image.Transpose.ROTATE_90).save(folder / "sub" / "Füße 日本.jpg", quality=85, exif=turned)
    draw = np.random.default_rng(5)
    canvas = scene_canvas(draw)
    for number in range(3):
        take_shot(canvas, draw).save(folder / f"burst-{number}.jpg", quality=90)
    photograph(3).save(folder / "single.jpg")
    frames = [photograph(seed, (120, 90)) for seed in (8, 9)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (64, 64), "white").save(folder / "white.png")
    Image.new("RGB", (64, 64), "black").save(folder / "black.png")
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "broken.jpg").write_bytes((folder / "single.jpg").read_bytes()[:4000])
    (folder / "huge.png").write_bytes(png_header(40_000, 40_000))
    (folder / "notes.txt").write_text("not an image")
    (folder / "link.jpg").symlink_to(folder / "a.jpg")
    (folder / os.fsdecode(b"\xfc.jpg")).write_bytes(b"")  # a name that is not UTF-8
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["duplicates", *map(str, arguments), "--model", "phash-256", "--threads", "2"])


@pytest.fixture(scope="module")
def found(photos: Path) -> dict[str, Any]:
    result = run(photos, "--json")
    assert result.exit_code == 0, result.output
    data: dict[str, Any] = json.loads(result.stdout)  # nothing else is on standard output
    return data


def names(folder: Path, paths: list[str]) -> set[str]:
    return {str(Path(path).relative_to(folder)) for path in paths}


def test_copies_of_every_kind_are_one_group_and_other_shots_are_none(photos: Path, found: dict[str, Any]) -> None:
    assert [names(photos, group["images"]) for group in found["groups"]] == [{"a.jpg", "sub/a.jpg", *COPIES}]
    (group,) = found["groups"]
    assert group["kind"] == "near"
    by = dict(zip(group["images"], group["by"], strict=True))
    assert [Path(path).name for path, what in by.items() if what == "bytes"].count("a.jpg") in (0, 2)


def test_heic_of_a_phone_is_a_copy(photos: Path, tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    first = photograph(0)
    heif.from_pillow(first).save(tmp_path / "phone.heic", quality=70)
    first.save(tmp_path / "a.jpg", quality=95)
    photograph(3).save(tmp_path / "other.jpg")
    (group,) = json.loads(run(tmp_path, "--json").stdout)["groups"]
    assert names(tmp_path, group["images"]) == {"a.jpg", "phone.heic"}


def test_the_image_with_most_pixels_is_kept_and_the_reason_given(photos: Path, found: dict[str, Any]) -> None:
    (group,) = found["groups"]
    assert group["keep"] == group["images"][0] == str(photos / "captioned.png")  # 400 x 300, and the largest file
    assert "largest file" in group["why"]


def test_a_photo_is_kept_rather_than_a_screenshot_that_shows_it_smaller(tmp_path: Path) -> None:
    first = photograph(0)
    first.save(tmp_path / "photo.jpg", quality=90)
    screen = Image.new("RGB", (400, 345), (15, 15, 18))  # more pixels than the photo has
    screen.paste(first.resize((355, 266), Image.Resampling.LANCZOS), (22, 40))
    screen.save(tmp_path / "screen.png")
    (group,) = json.loads(run(tmp_path, "--json", "--threshold", "0").stdout)["groups"]
    assert names(tmp_path, group["images"]) == {"photo.jpg", "screen.png"}
    assert (Path(group["keep"]).name, group["why"]) == ("photo.jpg", "shows the image largest")


def test_counts_add_up_and_unreadable_files_are_named_with_the_reason(photos: Path, found: dict[str, Any]) -> None:
    count = found["counts"]
    files = [path for path in photos.rglob("*.*") if path.suffix != ".txt" and not path.is_symlink()]
    assert count["found"] == len(files) - 1  # without that whose name is not UTF-8
    parts = ("unreadable", "single", "kept", "identical", "near")
    assert count["found"] == sum(count[part] for part in parts)
    assert count["kept"] == count["groups"] == len(found["groups"])
    reasons = {Path(entry["image"]).name: entry["reason"] for entry in found["unreadable"]}
    assert reasons.keys() == UNREADABLE.keys()
    for name, word in UNREADABLE.items():
        assert word in reasons[name]
    assert any("links to images" in line for line in found["left_out"])
    assert any(r"not valid UTF-8 (rename them): 1, \xfc.jpg" in line for line in found["left_out"])
    assert any(".txt files" in line for line in found["left_out"])


def test_json_names_model_threshold_and_where_it_comes_from(found: dict[str, Any]) -> None:
    assert (found["model"], found["precision"]) == ("phash-256", 99)
    assert found["threshold"] == defaults.DEFAULTS["phash-256"].threshold
    assert found["threshold_from"] == "shipped default"  # too few images to calibrate
    assert found["calibration"] is None


def test_many_unreadable_files_do_not_hide_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    photograph(3).save(tmp_path / "photos" / "a.jpg")
    for number in range(25):
        (tmp_path / "photos" / f"empty-{number}.jpg").write_bytes(b"")
    shown = run("photos").stdout
    assert shown.count("the file is empty") == 20
    assert "unreadable or left out: 5 more lines, all in duplicates-photos/index.html" in shown
    assert (tmp_path / "duplicates-photos" / "index.html").read_text().count("the file is empty") == 25


def test_nothing_in_the_folder_changes_and_results_are_beside_it(photos: Path, tmp_path: Path) -> None:
    def state() -> dict[Path, tuple[bytes, float]]:
        return {path: (path.read_bytes(), path.lstat().st_mtime) for path in photos.rglob("*") if path.is_file()}

    before = state()
    result = run(photos, "--out", tmp_path / "found")
    assert result.exit_code == 0, result.output
    assert state() == before
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["index.html", "keep.csv"]
    assert "nothing was deleted or moved. Next: " in result.stdout.splitlines()[-1]
    with (tmp_path / "found" / "keep.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["keep"] for row in rows] == ["yes"] + ["no"] * (len(COPIES) + 1)
    assert all(Path(row["image"]).is_file() for row in rows)


def test_a_second_search_computes_no_vector_again(
    photos: Path, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hasher, "encode", lambda *_: pytest.fail("computed again"))
    assert json.loads(run(photos, "--json").stdout) == found


def test_against_lists_what_is_in_both_folders(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "training"
    other.mkdir()
    photograph(3).save(other / "seen.webp", quality=70)
    photograph(4).save(other / "new.jpg")
    (other / "same.jpg").write_bytes((photos / "burst-0.jpg").read_bytes())
    result = run(photos, "--against", other, "--json", "--out", tmp_path / "found")
    data = json.loads(result.stdout)
    pairs = {(Path(pair["image"]).name, Path(pair["match"]).name): pair["kind"] for pair in data["pairs"]}
    assert pairs == {("single.jpg", "seen.webp"): "near", ("burst-0.jpg", "same.jpg"): "identical"}
    assert data["counts"]["pairs"] == 2
    with (tmp_path / "found" / "pairs.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 2


def test_a_copy_of_an_image_that_both_folders_have_is_found_from_either_side(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        for number in (1, 2):
            photograph(number).save(folder / f"{number}.jpg", quality=95)
    photograph(1).save(one / "again.webp", quality=70)
    for first, second, name in ((one, other, "image"), (other, one, "match")):
        data = json.loads(run(first, "--against", second, "--json").stdout)
        pairs = {(Path(pair["image"]).name, Path(pair["match"]).name) for pair in data["pairs"]}
        again = ("again.webp", "1.jpg") if name == "image" else ("1.jpg", "again.webp")
        assert pairs == {("1.jpg", "1.jpg"), ("2.jpg", "2.jpg"), again}


@pytest.mark.parametrize(
    ("option", "value", "status"),
    [
        ("--out", "{photos}/found", 1),
        ("--against", "{photos}/sub", 1),
        ("--precision", "100", 2),
        ("--threshold", "7", 1),
    ],
)
def test_a_wrong_request_is_refused_with_what_to_do(
    photos: Path, option: str, value: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    result = run(photos, option, value.format(photos=photos))
    assert result.exit_code == status
    assert option in result.stderr
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


def test_a_model_without_a_shipped_threshold_needs_one(photos: Path, tmp_path: Path) -> None:
    arguments = ["duplicates", str(photos), "--model", "pixels", "--json"]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 1
    assert refused.stderr.strip().endswith("--threshold T")
    accepted = CliRunner().invoke(app, [*arguments, "--threshold", "0.99"])
    assert accepted.exit_code == 0, accepted.output
    assert json.loads(accepted.stdout)["threshold_from"] == "given"


def test_the_best_available_model_is_the_default() -> None:
    assert defaults.preferred(["pixels", "phash-256", "sscd-int8"]) == "sscd-int8"
    assert defaults.preferred(["pixels", "phash-256"]) == "phash-256"


def grey(image: Image.Image) -> Any:
    return prepare(image)


def test_pixels_tell_a_copy_from_another_shot_and_from_a_stranger() -> None:
    first = photograph(0, (320, 240))
    cropped = compressed(first.crop((20, 15, 300, 220)).resize((320, 234)), 70)
    assert compare(grey(first), grey(cropped)) is Verdict.COPY
    assert compare(grey(first), grey(cropped.rotate(5, Image.Resampling.BICUBIC))) is Verdict.OTHER
    draw = np.random.default_rng(1)
    canvas = scene_canvas(draw)
    shots = [grey(take_shot(canvas, draw).resize((320, 240))) for _ in range(4)]
    assert {compare(shots[0], shot) for shot in shots[1:]} == {Verdict.OTHER}
    assert compare(grey(first), grey(photograph(7, (320, 240)))) is Verdict.OTHER
    sky = Image.linear_gradient("L").resize((320, 240))
    assert compare(grey(sky), grey(sky)) is Verdict.UNKNOWN  # nothing to recognize it by


@pytest.mark.parametrize("turn", TURNS)
def test_a_cropped_copy_is_found_in_each_orientation_from_the_features_of_one(turn: tuple[bool, bool, bool]) -> None:
    first = photograph(0, (320, 240))
    cropped = grey(compressed(first.crop((20, 15, 300, 220)), 70))
    turned = Prepared(cropped.turned(turn).grey, cropped.turned(turn).tones)
    assert compare(grey(first), turned) is Verdict.COPY
    known = {tuple(np.round(point).astype(int)) for point in cropped.turned(turn).features.points}
    found = [tuple(np.round(point).astype(int)) for point in turned.features.points]
    assert sum(point in known for point in found) > 0.9 * len(found)


def page_of_text(seed: int) -> Image.Image:
    """A printed form: the same frame, title and lines, filled in otherwise."""
    draw = np.random.default_rng(seed)
    image = Image.new("L", (500, 700), "white")
    pen = ImageDraw.Draw(image)
    pen.text((30, 20), "APPLICATION FOR A PERMIT", fill=0, font_size=26)
    for line in range(12):
        top = 80 + 50 * line
        pen.rectangle((30, top, 470, top + 42), outline=0, width=2)
        pen.text((36, top + 2), f"{line + 1}. What is your answer to question {line + 1}?", fill=0, font_size=12)
        words = "".join(chr(letter) for letter in draw.integers(97, 123, 18))
        pen.text((50, top + 18), words, fill=60, font_size=18)
    return image


def test_pages_of_one_template_are_no_copies_although_most_of_their_pixels_agree(tmp_path: Path) -> None:
    for seed in range(4):
        page_of_text(seed).save(tmp_path / f"page-{seed}.png")
    page_of_text(0).resize((350, 490), Image.Resampling.LANCZOS).save(tmp_path / "small.jpg", quality=70)
    page_of_text(1).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", quality=70)
    data = json.loads(run(tmp_path, "--json").stdout)
    assert [names(tmp_path, group["images"]) for group in data["groups"]] == [
        {"page-0.png", "small.jpg"},
        {"page-1.png", "turned.jpg"},
    ]


def bottle(color: str, label: str) -> Image.Image:
    """A product on white."""
    image = Image.new("RGB", (400, 400), "white")
    pen = ImageDraw.Draw(image)
    pen.rounded_rectangle((140, 120, 260, 360), 30, fill=color)
    pen.rectangle((180, 60, 220, 130), fill=color)
    pen.rectangle((146, 190, 254, 290), fill="#fafafa")
    pen.text((200, 240), label, fill="black", font_size=26, anchor="mm")
    return image


def test_products_on_white_of_another_color_or_label_are_no_copies(tmp_path: Path) -> None:
    first = bottle("#c62828", "ACME")
    first.save(tmp_path / "red.png")
    bottle("#1565c0", "ACME").save(tmp_path / "blue.png")
    bottle("#c62828", "NOVA").save(tmp_path / "label.png")
    first.save(tmp_path / "again.jpg", quality=60)
    first.resize((240, 240), Image.Resampling.LANCZOS).save(tmp_path / "small.webp", quality=70)
    (group,) = json.loads(run(tmp_path, "--json").stdout)["groups"]
    assert names(tmp_path, group["images"]) == {"red.png", "again.jpg", "small.webp"}


def test_a_file_of_its_own_is_kept_rather_than_one_in_an_archive(photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "single.jpg", tmp_path / "z.jpg")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(photos / "single.jpg", "in.jpg")
    (group,) = json.loads(run(tmp_path, "--json").stdout)["groups"]
    assert names(tmp_path, group["images"]) == {"z.jpg", "a.zip!in.jpg"}
    assert (Path(group["keep"]).name, group["why"]) == ("z.jpg", "same bytes; not in an archive")


@pytest.mark.parametrize(("date", "taken"), [("=cmd|calc!A0", ""), ("0000:00:00 00:00:00", ""), ("    :  :  ", "")])
def test_a_date_that_is_none_is_not_the_earliest(date: str, taken: str) -> None:
    exif = Image.Exif()
    exif[0x0132] = date
    data = io.BytesIO()
    photograph(0).save(data, "JPEG", exif=exif)
    assert reading._format_and_date(data.getvalue()) == ("JPEG", taken)
    data.seek(0)
    data.truncate()
    exif[0x0132] = "2024:02:03 04:05:06"
    photograph(0).save(data, "JPEG", exif=exif)
    assert reading._format_and_date(data.getvalue()) == ("JPEG", "2024:02:03 04:05:06")


def test_no_path_is_a_formula_or_an_option(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("=cmd|calc!A0.jpg", "-rf.jpg", "@a.jpg", "+1.jpg"):
        shutil.copy(photos / "single.jpg", tmp_path / name)
    (group,) = json.loads(run(".", "--json").stdout)["groups"]
    assert all(image.startswith("./") and Path(image).is_file() for image in group["images"])


def pairs_of(scores: list[float], wrong: list[float], images: int) -> Pairs:
    """Copy i of image i has the i-th score; the first copies also match a wrong image."""
    rows = [(number, images + number) for number in range(len(scores))]
    rows += [(number + 1, images + number) for number in range(len(wrong))]
    score = np.array([*scores, *wrong], np.float32)
    return Pairs(np.array(rows), score, score)


def test_a_calibrated_threshold_is_above_the_wrong_matches_of_copies() -> None:
    copies = 400
    found = pairs_of([0.9] * 380 + [0.5] * 20, [0.6] * 30, copies)
    own = Pairs(np.array([(0, 1), (2, 3)]), np.array([0.95, 0.55], np.float32), np.array([0.95, 0.55], np.float32))
    chosen = calibration.choose(found, np.arange(copies), own, copies, 99)
    assert chosen.threshold == pytest.approx(0.9)
    assert chosen.found == 0.95
    assert chosen.false_per_image == 0
    assert 0 < chosen.at_most < 0.01
    assert calibration.choose(pairs_of([0.9] * 50, [], 50), np.arange(50), own, 50, 99).threshold is None


def test_false_matches_count_for_the_share_of_matches_that_a_folder_has() -> None:
    """One wrong match of 600 copies is precise enough on copies, and not in a folder where only two pairs match."""
    copies = 600
    found = pairs_of([0.9] * 400 + [0.7] * 200, [0.8], copies)
    few = Pairs(np.array([(0, 1), (2, 3)]), np.array([0.95] * 2, np.float32), np.array([0.95] * 2, np.float32))
    many = Pairs(np.array([(0, 1)] * 200), np.full(200, 0.95, np.float32), np.full(200, SURE, np.float32))
    assert calibration.choose(found, np.arange(copies), few, copies, 99).threshold == pytest.approx(0.9)
    assert calibration.choose(found, np.arange(copies), many, copies, 99).threshold == pytest.approx(0.7)


def test_matches_within_one_of_two_folders_are_not_wrong_matches_between_them() -> None:
    """Copies of images of two folders; the first 30 copies also match another image of the same folder."""
    copies = 400
    found = pairs_of([0.9] * copies, [0.95] * 30, copies)
    own = Pairs(np.array([(0, 399)]), np.array([0.95], np.float32), np.array([SURE], np.float32))
    sides = np.stack([np.arange(copies) < 200, np.arange(copies) >= 200], axis=1)
    assert calibration.choose(found, np.arange(copies), own, copies, 95).threshold is None
    between = calibration.choose(found, np.arange(copies), own, copies, 95, sides=sides)
    assert (between.threshold, between.false_per_image) == (pytest.approx(0.9), 0)


def test_where_pixels_decide_alone_no_threshold_is_reported(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"found": 0.7, "false_per_image": 0.0, "at_most": 0.07, "expected_false": 0.0}
    only = calibration.Calibration(copies=40, threshold=SURE, pairs=8, **rates)
    monkeypatch.setattr(calibration, "calibrate", lambda *_, **__: only)
    monkeypatch.setattr(Pairs, "undecided", 1)
    arguments = ["duplicates", str(photos), "--model", "phash-256"]
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert (found["threshold"], found["threshold_from"]) == (None, "calibrated")
    assert found["calibration"]["threshold"] is None
    monkeypatch.chdir(photos.parent)
    shown = CliRunner().invoke(app, arguments).stdout
    assert "model: phash-256, only pixels decide (calibrated on 40 copies of these images)" in shown


def test_a_folder_with_an_undecided_pair_gets_a_threshold_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "OPERATIONS", ("jpeg", "webp"))  # which a hash finds
    for seed in range(10):
        photograph(seed, (200, 150)).save(tmp_path / f"{seed}.png")
    blots = np.random.default_rng(2).integers(90, 170, (6, 8), np.uint8)
    fog = Image.fromarray(blots).resize((320, 240), Image.Resampling.BICUBIC)
    fog.save(tmp_path / "fog.png")
    fog.crop((20, 12, 310, 236)).save(tmp_path / "fog-cropped.png")  # of too few features to tell
    data = json.loads(run(tmp_path, "--precision", "50", "--json").stdout)
    assert data["threshold_from"] == "calibrated"
    found = data["calibration"]
    assert found["copies"] == calibration.copies_needed(50)
    assert 0 < found["found"] <= 1
    assert 0 <= found["false_per_image"] <= found["at_most"]


def test_where_pixels_decide_every_pair_nothing_is_calibrated(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "calibrate", lambda *_, **__: pytest.fail("calibrated"))
    monkeypatch.chdir(photos.parent)
    shown = CliRunner().invoke(app, ["duplicates", str(photos), "--model", "phash-256"]).stdout
    assert "(the model's shipped default, which decided nothing: pixels tell about every pair)" in shown


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("phash-265", "model 'phash-265' is not defined. Did you mean 'phash-256'?"),
        ("xyz", "model 'xyz' is not defined. To list those that are: lookalike models"),
        ("pixels", "--model pixels: has no shipped threshold"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_with_the_reason(photos: Path, model: str, message: str) -> None:
    result = CliRunner().invoke(app, ["duplicates", str(photos), "--model", model, "--json"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"lookalike: {message}")


def test_an_image_that_kills_its_decoder_is_rejected_by_the_next_search(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    photograph(0, (120, 90)).save(folder / "a.png")
    made_image(0, (60, CRASHES)).save(folder / "bad.png")
    command = [sys.executable, "-c", START, "duplicates", "photos", "--model", "phash-256", "--json"]
    paths = os.pathsep.join([str(REPOSITORY / "tests/faulty"), str(REPOSITORY / "workflow_scripts")])
    environment = {**os.environ, "PYTHONPATH": paths, "LOOKALIKE_HOME": str(tmp_path / "home")}
    first, second = (
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        for _ in range(2)
    )
    assert first.returncode < 0
    assert "bad.png. Run the command again: the next attempt decodes" in first.stderr
    assert second.returncode == 0, second.stderr
    (bad,) = json.loads(second.stdout)["unreadable"]
    assert (bad["image"], bad["reason"].startswith("not decoded: ")) == ("photos/bad.png", True)


def test_the_library_finds_the_same_with_a_precision(photos: Path, found: dict[str, Any]) -> None:
    table = la.find_duplicates(photos, precision=99, model="phash-256")
    assert names(photos, table["image"].tolist()) == {"a.jpg", "sub/a.jpg", *COPIES}
    assert table["keep"].sum() == 1
    assert table.attrs["model"] == "phash-256"
    assert len(table.attrs["rejected"]) == len(UNREADABLE)
    listed = la.find_duplicates([photos / "a.jpg", photos / "cropped.jpg"], precision=99, model="phash-256")
    assert listed["kind"].tolist() == ["kept", "near"]
    assert "cropped.jpg" not in names(photos, la.find_duplicates(photos)["image"].tolist())
    with pytest.raises(la.LookalikeError, match="precision"):
        la.find_duplicates(photos, model="phash-256")
