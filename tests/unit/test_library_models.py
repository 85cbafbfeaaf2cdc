"""``load_model`` gives the numbers that a run writes, for whatever an image comes as."""

import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import TypeAdapter

import lookalike as la
import onnx_networks
import profiles
import tiny
from conftest import REPOSITORY, ImageFolder, made_image
from lookalike.config.models import Embed
from lookalike.embed import export
from lookalike.embed.catalogue import offline
from lookalike.embed.embed import EmbedJob, embed_shard
from lookalike.embed.fetch_weights import fetch_weights
from lookalike.io import content_hashes, phone_formats, store
from lookalike.io.formats.tables import EMBEDDINGS, SHARD
from lookalike.plan import keys

PIXELS = {"family": "pixels", "size": 4}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without results; the cache is of this test alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path, image_folder: ImageFolder) -> list[Path]:
    return sorted(image_folder(tmp_path / "photos", 11).iterdir())


def embedded_by_a_run(entry: dict[str, Any], photos: list[Path], folder: Path) -> np.ndarray:
    """The rows of the Parquet file that the stages fetch_weights, export and embed write, in the order of photos."""
    record: Any = TypeAdapter(Embed).validate_python(entry)
    names = [path.name for path in photos]
    columns = {"image_id": names, "root": [str(photos[0].parent)] * len(photos), "path": names}
    columns |= {"bytes": [path.stat().st_size for path in photos]}
    columns |= {"content_hash": [content_hashes.of_file(path) for path in photos]}
    store.write_table(pa.table(columns, SHARD.schema()), folder / "shard.parquet", SHARD, {})
    fetch_weights(record.weights_key(), folder / "weights.json")
    exported = None
    if key := record.export_key():
        exported = str(folder / "export" / "export.json")
        export.export(export.ExportJob(str(folder / "weights.json"), exported, key, "code", 32, 2))
    embed_shard(
        EmbedJob(
            shard=str(folder / "shard.parquet"),
            weights=str(folder / "weights.json"),
            out=str(folder / "out.parquet"),
            rejected_out=str(folder / "rejected.parquet"),
            timing_out=str(folder / "timing.json"),
            model="a model",
            key=keys.key(record),
            code="code",
            batch_size=32,
            threads=2,
            gpu=False,
            export=exported,
        )
    )
    table = store.read_table(folder / "out.parquet", EMBEDDINGS)
    assert table["image_id"].to_pylist() == names
    return np.array(table["embedding"].to_pylist(), np.float32)


ENTRIES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "pixels": lambda folder: PIXELS,
    "pixels in float16": lambda folder: {**PIXELS, "stored_dtype": "float16"},
    "phash": lambda folder: {"family": "hash", "method": "phash"},
    "an exported checkpoint": lambda folder: {
        **{"family": "transformers", "checkpoint": str(tiny.dinov2(folder / "dinov2"))},
        **{"feature": "last_hidden_state", "pooling": "cls"},
    },
    "a checkpoint by torch": lambda folder: {
        **{"family": "transformers", "checkpoint": str(tiny.vit(folder / "vit")), "compute_dtype": "bfloat16"},
        **{"feature": "last_hidden_state", "pooling": "mean"},
    },
    "an ONNX file": lambda folder: {
        **{"family": "onnx", "path": str(onnx_networks.save(folder / "network.onnx", sides=(32, 32)))},
        **{"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)},
    },
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's exporter
@pytest.mark.parametrize("name", ENTRIES)
def test_vectors_are_those_of_a_run_to_the_last_bit(name: str, photos: list[Path], tmp_path: Path) -> None:
    entry = ENTRIES[name](tmp_path)
    expected = embedded_by_a_run(entry, photos, tmp_path)
    model = la.load_model(entry, threads=2)
    vectors = model.embed(photos)
    np.testing.assert_array_equal(vectors, expected)
    assert vectors.dtype == np.float32
    assert vectors.shape == (11, model.dimension)
    footer = store.read_provenance(tmp_path / "out.parquet")
    assert model.engine == footer["engine"]
    assert len(np.unique(vectors, axis=0)) == 11


def test_a_network_is_exported_once_and_loads_without_torch_from_then_on(tmp_path: Path) -> None:
    entry = ENTRIES["an exported checkpoint"](tmp_path)
    la.load_model(entry)
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'onnx', 'onnxscript'): sys.modules[name] = None\n"
        f"import lookalike as la; print(la.load_model({entry!r}).engine['name'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow_scripts")}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "onnxruntime", ran.stderr


def test_the_weights_that_a_run_recorded_are_used(tmp_path: Path) -> None:
    """A checkpoint that has changed since is refused, as the embed stage refuses it."""
    entry = ENTRIES["a checkpoint by torch"](tmp_path)
    record: Any = TypeAdapter(Embed).validate_python(entry)
    weights = tmp_path / record.weights_file()
    fetch_weights(record.weights_key(), weights)
    la.load_model(entry, results=tmp_path / "results")
    with (tmp_path / "vit" / "model.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(la.LookalikeError, match="has changed since fetch_weights recorded it"):
        la.load_model(entry, results=tmp_path / "results")


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def odd_images(folder: Path) -> dict[str, Path]:
    rgb = made_image(1)
    alpha = made_image(2).convert("L")
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = np.asarray(rgb.convert("L")).astype(np.uint16) * 257
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    return {
        "RGB": saved(rgb, folder / "rgb.png"),
        "RGBA": saved(rgba, folder / "rgba.png"),
        "LA": saved(rgba.convert("LA"), folder / "la.png"),
        "L": saved(alpha, folder / "l.png"),
        "1": saved(alpha.convert("1"), folder / "1.png"),
        "P": saved(palette, folder / "p.gif"),
        "P with a transparent color": saved(palette, folder / "transparent.png", transparency=3),
        "RGB with a transparent color": saved(rgb, folder / "clear.png", transparency=rgb.getpixel((0, 0))),
        "16 bits": saved(Image.fromarray(deep), folder / "16.png"),
        "JPEG": saved(rgb, folder / "photo.jpg"),
        "turned": saved(rgb, folder / "turned.jpg", exif=turned),
        "CMYK": saved(rgb.convert("CMYK"), folder / "cmyk.jpg"),
        "TIFF, turned": saved(rgb, folder / "turned.tif", exif=turned),
    }


def phone_images(folder: Path) -> dict[str, Path]:
    assert all(map(phone_formats.is_installed, phone_formats.KINDS))  # which lets Pillow write them, too
    turned = Image.Exif()
    turned[0x0112] = 6
    image = made_image(3, (64, 48))
    return {name: saved(image, folder / f"turned.{name}", exif=turned.tobytes()) for name in ("heic", "jxl")}


def test_an_image_has_one_vector_as_path_bytes_and_pil_image(tmp_path: Path) -> None:
    model = la.load_model({"family": "pixels", "size": 16})
    for name, path in (odd_images(tmp_path) | phone_images(tmp_path)).items():
        with Image.open(path) as image:
            vectors = model.embed([path, str(path), path.read_bytes(), image])
        assert (vectors == vectors[0]).all(), name


def test_a_pil_image_given_several_times_is_read_once(tmp_path: Path) -> None:
    """PIL reads an image when it is first used; two threads at once would get each other's bytes."""
    path = saved(made_image(0, (1500, 1500)), tmp_path / "large.jpg")
    model = la.load_model({"family": "pixels", "size": 8}, threads=4)
    with Image.open(path) as image:
        vectors = model.embed([image] * 8)
    np.testing.assert_array_equal(vectors, np.repeat(model.embed([path]), 8, axis=0))


@pytest.mark.parametrize(("bits", "white", "order"), [(16, 1, "<"), (16, 0, "<"), (16, 1, ">"), (12, 1, "<")])
def test_grey_tiffs_have_one_vector_as_path_and_pil_image(bits: int, white: int, order: str, tmp_path: Path) -> None:
    model = la.load_model({"family": "pixels", "size": 8})
    path = tmp_path / "grey.tiff"
    path.write_bytes(grey_tiff(bits, white, order))
    with Image.open(path) as image:
        vectors = model.embed([path, image])
    np.testing.assert_array_equal(vectors[0], vectors[1])


def grey_tiff(bits: int, white: int, order: str) -> bytes:
    """A TIFF of 16 x 16 grey pixels; ``white`` is its PhotometricInterpretation, 0 where 0 is white."""
    values = np.arange(256, dtype=np.uint16) * (1 << (bits - 8))
    if bits == 16:
        pixels = values.astype(f"{order}u2").tobytes()
    else:  # packed, the highest bit first
        pixels = np.packbits(np.unpackbits(values.astype(">u2").view(np.uint8)).reshape(-1, 16)[:, 4:]).tobytes()
    tags = [(256, 16), (257, 16), (258, bits), (259, 1), (262, white), (273, 122), (277, 1), (278, 16)]
    tags.append((279, len(pixels)))
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return header + entries + struct.pack(f"{order}I", 0) + pixels


def test_cmyk_keeps_its_color_profile(tmp_path: Path) -> None:
    cmyk = made_image(0, (32, 24)).convert("CMYK")
    turned = Image.Exif()
    turned[0x0112] = 6
    for entry in ({"family": "pixels", "size": 8}, {"family": "pixels", "size": 8, "icc": "srgb"}):
        model = la.load_model(entry)
        for name in ("cmyk.jpg", "cmyk.tiff"):
            cmyk.save(tmp_path / name, exif=turned, icc_profile=profiles.cmyk())
            with Image.open(tmp_path / name) as image:
                vectors = model.embed([tmp_path / name, image])
            np.testing.assert_array_equal(vectors[0], vectors[1])


def test_arrays_are_rgb_in_rows_and_columns(photos: list[Path]) -> None:
    model = la.load_model({"family": "color_histogram"})
    arrays = [np.asarray(Image.open(path)) for path in photos]
    expected = model.embed(photos)
    np.testing.assert_array_equal(model.embed(arrays), expected)
    np.testing.assert_array_equal(model.embed(np.stack(arrays)), expected)
    transposed = np.ascontiguousarray(arrays[0].transpose(1, 0, 2)).transpose(1, 0, 2)  # not contiguous
    np.testing.assert_array_equal(model.embed([transposed]), expected[:1])


def test_rows_are_in_the_order_of_the_images_and_equal_images_are_equal(photos: list[Path]) -> None:
    model = la.load_model(PIXELS)
    order = [3, 0, 3, 10, 0, 7]
    vectors = model.embed(photos[number] for number in order)
    np.testing.assert_array_equal(vectors, model.embed(photos)[order])
    assert model.embed([]).shape == (0, 16)


def test_a_member_of_an_archive_and_a_home_folder_are_found(
    tmp_path: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(photos[0], "a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    vectors = la.load_model(PIXELS).embed(["photos.zip!a.png", "~/photos/p0.png"])
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_unusable_images_are_all_named_with_the_reason(photos: list[Path], tmp_path: Path) -> None:
    model = la.load_model(PIXELS)
    (tmp_path / "text.jpg").write_text("no image")
    cut = photos[1].read_bytes()[:200]
    given = [photos[0], "text.jpg", cut, "missing.jpg", Image.open(io.BytesIO(cut))]
    with pytest.raises(la.LookalikeError) as caught:
        model.embed(given)
    message = str(caught.value)
    assert message.startswith("4 of 5 images cannot be embedded: text.jpg: is text, not an image; images[2]: damaged")
    assert "missing.jpg: no such file; ..." in message
    vectors = model.embed(given, errors="nan")
    np.testing.assert_array_equal(vectors[0], model.embed(photos[:1])[0])
    assert np.isnan(vectors[1:]).all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("a.jpg", "is a single image. Put it in a list"),
        (b"bytes", "is a single image"),
        ([None], r"images\[0\]: is a NoneType. Pass a path"),
        ([np.zeros((4, 4, 3))], "dtype float64. Pass .height, width, 3. uint8"),
        (np.zeros((4, 4, 3), np.uint8), r"images\[0\]: is an array of shape \(4, 3\)"),
        ([np.zeros((3, 4, 4), np.uint8)], r"shape \(3, 4, 4\)"),
    ],
)
@pytest.mark.parametrize("errors", ["raise", "nan"])
def test_what_is_not_an_image_is_an_error_in_any_case(images: Any, message: str, errors: Any) -> None:
    with pytest.raises(la.LookalikeError, match=message):
        la.load_model(PIXELS).embed(images, errors=errors)


def test_a_misspelt_errors_does_not_pass_for_raise(photos: list[Path]) -> None:
    with pytest.raises(la.LookalikeError, match="Use 'raise' or 'nan'"):
        la.load_model(PIXELS).embed(photos, errors="ignore")  # type: ignore[arg-type]


def test_similarity_is_the_cosine_that_the_command_prints(photos: list[Path]) -> None:
    model = la.load_model("pixels")
    a, b = (vector.astype(np.float64) for vector in model.embed(photos[:2]))
    assert model.similarity(photos[0], photos[1]) == round(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), 7)
    assert model.similarity(photos[0], photos[0]) == 1
    command = [sys.executable, "-c", "from lookalike.cli.main import main; main()", "pair", "--json", "--model=pixels"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow_scripts")}
    ran = subprocess.run([*command, *photos[:2]], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["models"][0]["cosine"] == model.similarity(photos[0], photos[1])


def test_a_model_of_a_users_configuration_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("models:\n  tiny: {label: Tiny, embed: {family: pixels, size: 3}}\n")
    model = la.load_model("tiny", config="mine.yaml", threads=1)
    assert (model.name, model.dimension, model.device) == ("tiny", 9, "CPU (1 threads)")
    assert repr(model) == "<lookalike.Model tiny: 9 dimensions, CPU (1 threads)>"
    assert "tiny" in la.models(config=[tmp_path / "mine.yaml"])["name"].to_list()
    with pytest.raises(la.LookalikeError, match="model 'tiny' is not defined"):
        la.load_model("tiny")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("pixel", "model 'pixel' is not defined. Did you mean 'pixels'?"),
        ({"family": "pixels", "sides": 3}, r"models.entry.embed.sides: .*"),
        ({"family": "pixels", "size": 1}, r"models.entry.embed.size: .*"),
        ({"embed": {"family": "onnx", "path": "none.onnx", "size": 8}}, "none.onnx: no such file"),
        (
            "mine",
            "no such file.* To fetch the weights ahead of time: lookalike fetch mine --configfile m.yaml",
        ),
    ],
)
def test_a_wrong_model_says_where_what_and_what_to_do(model: Any, message: str) -> None:
    Path("m.yaml").write_text("models: {mine: {embed: {family: onnx, path: none.onnx}}}")
    with pytest.raises(la.LookalikeError, match=message):
        la.load_model(model, config="m.yaml")


def test_weights_that_are_missing_offline_are_fetched_by_a_command() -> None:
    Path("m.yaml").write_text("models: {mine: {embed: {family: onnx, checkpoint: owner/none, file: a.onnx}}}")
    with offline(), pytest.raises(la.LookalikeError) as raised:
        la.load_model("mine", config="m.yaml")
    assert "Run lookalike fetch mine --configfile m.yaml " in str(raised.value)
    assert "fetch_weights" not in str(raised.value)


def test_an_entry_takes_nothing_from_a_model_of_the_configuration(tmp_path: Path) -> None:
    mine = {"models": {"entry": {"embed": {"family": "pixels", "stored_dtype": "float16", "size": 4}}}}
    (tmp_path / "mine.yaml").write_text(json.dumps(mine))
    image = made_image(0)
    found = la.load_model({"family": "pixels", "size": 8}, config=tmp_path / "mine.yaml").embed([image])
    np.testing.assert_array_equal(found, la.load_model({"family": "pixels", "size": 8}).embed([image]))


def test_a_whole_entry_brings_its_runtime() -> None:
    model = la.load_model({"embed": PIXELS, "runtime": {"batch_size": 2}})
    assert model._batch_size == 2


def test_the_catalogue_is_a_table() -> None:
    table = la.models().set_index("name")
    assert table.loc["dinov2-base", ["family", "licence", "dimension"]].to_list() == ["transformers", "Apache-2.0", 768]
    assert table["parameters"].dtype == "Int64"
    assert table.loc["phash-256", "needs"] == ""
    assert "revision" in table.loc["dinov2-base", "needs"]  # of a checkpoint that no test has downloaded
