"""ONNX networks: any layout, type, batch and output gives what straightforward code gives, or says what is wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization import quantize_dynamic as quantise_dynamic
from PIL import Image

from conftest import REPOSITORY, made_image
from lookalike.config.loading import parse
from lookalike.config.models import from_key
from lookalike.embed import encoders
from lookalike.io import store
from lookalike.job.errors import ConfigError, LookalikeError
from onnx_networks import SIDE, map_of, save

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALISED = {"mean": MEAN, "std": STD}
IMAGES = [
    made_image(1, (131, 64)),
    made_image(2, (41, 97)),
    made_image(3, (32, 32)),
    made_image(4, (200, 20)),
    made_image(5, (64, 64)),
]


def key(**entry: Any) -> str:
    return json.dumps({"family": "onnx", "interpolation": "bicubic", **entry})


def load(**entry: Any) -> encoders.Encoder:
    parsed = encoders.parse(key(**entry))
    weights = encoders.family(parsed).fetch(from_key(parsed.weights_key()))
    return encoders.load(key(**entry), weights, encoders.Machine(threads=1))


def vectors(encoder: encoders.Encoder, images: list[Image.Image]) -> Any:
    return encoder.encode(np.stack([encoder.prepare(image) for image in images]))


def expected(images: list[Image.Image], *, raw: bool = False, bgr: bool = False) -> Any:
    """The feature maps of images that are squashed to a square."""
    squashed = [np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32) for image in images]
    pixels = np.stack(squashed)
    pixels = pixels if raw else (pixels / 255 - np.float32(MEAN)) / np.float32(STD)
    return map_of(np.ascontiguousarray((pixels[..., ::-1] if bgr else pixels).transpose(0, 3, 1, 2)))


def same(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_vectors_equal_straightforward_code(tmp_path: Path, layout: str, dtype: str, batch: int | None) -> None:
    """A fixed batch of 3 is filled up for 5 images, and one of 1 is run five times."""
    file = save(tmp_path / "net.onnx", layout=layout, dtype=dtype, batch=batch)
    encoder = load(path=str(file), size=SIDE, **({} if dtype == "uint8" else NORMALISED))
    found, wanted = vectors(encoder, IMAGES), expected(IMAGES, raw=dtype == "uint8").mean((2, 3))
    np.testing.assert_allclose(
        found, wanted, rtol=0, atol=(1e-3 if dtype == "float16" else 1e-5) * np.abs(wanted).max()
    )
    assert encoder.dimension == 8
    assert not encoder.overlaps
    for row, image in zip(found, IMAGES, strict=True):
        np.testing.assert_array_equal(vectors(encoder, [image])[0], row, "whatever the batch, to the last bit")


@pytest.mark.parametrize(
    ("give", "pooling"),
    [("map", "mean"), ("map", "gem"), ("tokens", "mean"), ("tokens", "gem"), ("tokens", "cls"), ("pooled", "none")],
)
def test_tokens_and_maps_are_pooled(tmp_path: Path, give: str, pooling: str) -> None:
    file = save(tmp_path / "net.onnx", give=give, sides=(SIDE, SIDE))
    found = vectors(load(path=str(file), pooling=pooling, **NORMALISED), IMAGES)
    features = expected(IMAGES).reshape(len(IMAGES), 8, -1)
    wanted = {
        "cls": features[..., 0],
        "gem": (np.maximum(features, 1e-6) ** 3).mean(2) ** (1 / 3),
    }.get(pooling, features.mean(2))
    same(found, wanted)


def test_one_of_several_outputs_is_used_by_name(tmp_path: Path) -> None:
    file = save(tmp_path / "net.onnx", give="vector+map", sides=(SIDE, SIDE))
    same(vectors(load(path=str(file), output="vector", **NORMALISED), IMAGES), expected(IMAGES).mean((2, 3)))
    with pytest.raises(LookalikeError, match=r"has 2 outputs\. Add output: the name of one of 'vector'.*, 'map'"):
        load(path=str(file), **NORMALISED)
    with pytest.raises(LookalikeError, match=r"has no output 'logits'\. Choose one of: 'vector'"):
        load(path=str(file), output="logits", **NORMALISED)


def test_a_network_trained_on_bgr_is_given_bgr_and_its_statistics_stay_in_the_order_red_green_blue(
    tmp_path: Path,
) -> None:
    file = save(tmp_path / "net.onnx")
    found = vectors(load(path=str(file), size=SIDE, channels="bgr", **NORMALISED), IMAGES)
    same(found, expected(IMAGES, bgr=True).mean((2, 3)))
    assert np.abs(found - expected(IMAGES).mean((2, 3))).max() > 0.1, "the order matters here"


def test_the_files_own_sides_are_followed_square_or_not(tmp_path: Path) -> None:
    encoder = load(path=str(save(tmp_path / "net.onnx", sides=(48, 32))), **NORMALISED)
    assert encoder.prepare(IMAGES[0]).shape == (48, 32, 3)
    with pytest.raises(LookalikeError, match=r"is not square, and resize: crop cuts out a square\. Use resize: squash"):
        load(path=str(tmp_path / "net.onnx"), resize="crop", **NORMALISED)


def test_a_crop_is_the_middle(tmp_path: Path) -> None:
    encoder = load(path=str(save(tmp_path / "net.onnx")), size=SIDE, resize="crop", **NORMALISED)
    image = made_image(7, (64, 32))
    np.testing.assert_array_equal(encoder.prepare(image), np.asarray(image.crop((16, 0, 48, 32))))


def test_weights_beside_the_file_are_recorded_and_watched(tmp_path: Path) -> None:
    file = save(tmp_path / "net.onnx", external=True)
    entry = encoders.parse(key(path=str(file), size=SIDE, **NORMALISED))
    weights = encoders.family(entry).fetch(entry)
    data = tmp_path / "net.onnx.data"
    assert weights.files == {"net.onnx": store.sha256_file(file), "net.onnx.data": store.sha256_file(data)}
    encoder = encoders.load(key(path=str(file), size=SIDE, **NORMALISED), weights, encoders.Machine())
    same(vectors(encoder, IMAGES), expected(IMAGES).mean((2, 3)))
    content = bytearray(data.read_bytes())
    content[10] ^= 1
    data.write_bytes(content)
    with pytest.raises(LookalikeError, match=r"net\.onnx\.data: has changed since fetch_weights recorded it"):
        encoders.load(key(path=str(file), size=SIDE, **NORMALISED), weights, encoders.Machine())
    data.unlink()
    with pytest.raises(LookalikeError, match=r"keeps its weights in net\.onnx\.data beside it, which is missing"):
        encoders.family(entry).fetch(entry)


def test_a_file_of_a_package_is_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site/some_network").mkdir(parents=True)
    (tmp_path / "site/some_network/__init__.py").write_text("raise RuntimeError('it is never imported')")
    file = save(tmp_path / "site/some_network/net.onnx")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    entry = {"package": "some_network", "file": "net.onnx", "size": SIDE, **NORMALISED}
    same(vectors(load(**entry), IMAGES), expected(IMAGES).mean((2, 3)))
    copies = [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == file.read_bytes()]
    assert copies == [file]
    with pytest.raises(LookalikeError, match=r"the Python package some_network .*has no such file"):
        load(**{**entry, "file": "other.onnx"})
    with pytest.raises(
        LookalikeError, match=r"no_such_network, which contains net.onnx, is not installed.*pip install no-such-network"
    ):
        load(**{**entry, "package": "no_such_network"})


def test_a_named_hash_is_held(tmp_path: Path) -> None:
    file = save(tmp_path / "net.onnx")
    entry = {"path": str(file), "size": SIDE, **NORMALISED}
    assert load(**entry, sha256=store.sha256_file(file)).dimension == 8
    with pytest.raises(LookalikeError, match=r"its SHA-256 is .*, but the model's entry says 0000"):
        load(**entry, sha256="0" * 64)


RANDOM = (
    helper.make_node("RandomNormalLike", ["features"], ["noise"]),
    helper.make_node("Add", ["features", "noise"], ["changed"]),
)
OF_THE_BATCH = (
    helper.make_node("ReduceMax", ["features"], ["largest"], axes=[0], keepdims=1),
    helper.make_node("Sub", ["features", "largest"], ["changed"]),
)
NOT_FINITE = (helper.make_node("Log", ["features"], ["changed"]),)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (RANDOM, "is not deterministic"),
        (OF_THE_BATCH, r"depends on the other images in its batch.*set batch: 1"),
        (NOT_FINITE, "gives NaN or infinite numbers"),
    ],
)
def test_a_network_is_tried_when_it_is_loaded(tmp_path: Path, nodes: tuple[Any, ...], said: str) -> None:
    with pytest.raises(LookalikeError, match=said):
        load(path=str(save(tmp_path / "net.onnx", before=nodes)), size=SIDE, **NORMALISED)


def test_batch_1_makes_vectors_a_function_of_the_image_alone(tmp_path: Path) -> None:
    file = save(
        tmp_path / "net.onnx", before=(*OF_THE_BATCH[:1], helper.make_node("Identity", ["largest"], ["changed"]))
    )
    found = vectors(load(path=str(file), size=SIDE, batch=1, **NORMALISED), IMAGES)
    same(found, expected(IMAGES).mean((2, 3)))


@pytest.mark.filterwarnings("ignore")  # the quantiser's own
def test_a_quantised_network_is_known_as_one_and_with_batch_1_its_vectors_depend_on_the_image_alone(
    tmp_path: Path,
) -> None:
    file = save(tmp_path / "float.onnx", sides=(SIDE, SIDE))
    assert load(path=str(file), **NORMALISED).compute_dtype == "float32"
    quantise_dynamic(file, tmp_path / "net.onnx", weight_type=QuantType.QUInt8)
    entry = {"path": str(tmp_path / "net.onnx"), **NORMALISED}
    encoder = load(**entry, batch=1)
    assert encoder.compute_dtype == "int8"
    found, exact = vectors(encoder, IMAGES), expected(IMAGES).mean((2, 3))
    assert 0 < np.abs(found - exact).max() < 0.05 * np.abs(exact).max(), "nearly, and no number of int8 is held exactly"
    alone = vectors(encoder, IMAGES[:1])
    np.testing.assert_array_equal(alone[0], found[0])


def test_embedding_with_an_onnx_network_imports_no_torch(tmp_path: Path) -> None:
    file = save(tmp_path / "net.onnx", sides=(SIDE, SIDE))
    code = f"""
import sys
from PIL import Image
from lookalike.embed import embed, encoders
key = {key(path=str(file), **NORMALISED)!r}
entry = encoders.parse(key)
weights = encoders.Weights(source="", revision="", files={{"net.onnx": {store.sha256_file(file)!r}}})
encoder = encoders.load(key, weights, encoders.Machine())
encoder.encode(encoder.prepare(Image.new("RGB", (9, 9)))[None])
print(sorted({{"torch", "transformers", "onnx"}} & set(sys.modules)))
"""
    scripts = REPOSITORY / "workflow_scripts"
    ran = subprocess.run([sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize(
    ("network", "entry", "said"),
    [
        ({}, NORMALISED, r"takes images of any size\. Add size: the side in pixels"),
        ({"sides": (64, 64)}, {**NORMALISED, "size": 32}, r"takes images of 64 x 64 .*size is 32\. Remove size"),
        ({}, {"size": 32}, r"takes normalised values\. Add mean and std"),
        ({"dtype": "uint8"}, {**NORMALISED, "size": 32}, r"takes pixels as they are\. Remove mean and std"),
        ({"channels": None}, {**NORMALISED, "size": 32}, r"does not say where.* Add layout: nchw or nhwc"),
        ({"sides": (32, 32)}, {**NORMALISED, "layout": "nhwc"}, r"where layout nhwc has them, not 3\. Correct layout"),
        ({"channels": 1}, {**NORMALISED, "size": 32}, r"has no 3 color channels\. Use a network for color images"),
        ({"batch": 2}, {**NORMALISED, "size": 32, "batch": 4}, r"takes 2 images, and batch is 4\. Remove it"),
        ({"inputs": 2}, {**NORMALISED, "size": 32}, r"has 2 inputs .*text1.* Export its image part"),
        ({"give": "map"}, {**NORMALISED, "size": 32}, r"output 'map': has the shape \(1, 8, 30, 30\).*Add pooling"),
        ({"give": "map"}, {**NORMALISED, "size": 32, "pooling": "cls"}, r"is a feature map, which has no class token"),
        ({}, {**NORMALISED, "size": 32, "pooling": "mean"}, r"output 'vector': has the shape .*Leave pooling out"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_with_place_fact_and_remedy(
    tmp_path: Path, network: dict[str, Any], entry: dict[str, Any], said: str
) -> None:
    with pytest.raises(LookalikeError, match=rf"net\.onnx: .*{said}"):
        load(path=str(save(tmp_path / "net.onnx", **network)), **entry)


def test_where_the_file_leaves_the_channels_open_the_entry_says_where_they_are(tmp_path: Path) -> None:
    file = save(tmp_path / "net.onnx", channels=None, layout="nhwc")
    same(
        vectors(load(path=str(file), size=SIDE, layout="nhwc", **NORMALISED), IMAGES),
        expected(IMAGES).mean((2, 3)),
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_torchscript_file_exported_as_the_docs_say_gives_the_same_vectors(tmp_path: Path) -> None:
    class Convolution(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first = torch.nn.Conv2d(3, 8, 3)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.first(pixels).relu().mean((2, 3))

    script = tmp_path / "network.torchscript.pt"
    torch.jit.save(torch.jit.script(Convolution()), script)
    page = (REPOSITORY / "docs/model-families.md").read_text()
    (snippet,) = re.findall(r"```python\n(import torch\s+network.*?)```", page, re.DOTALL)
    file = tmp_path / "network.onnx"
    exec(snippet.replace("network.torchscript.pt", str(script)).replace("network.onnx", str(file)))
    settings = {"size": 320, "interpolation": "bicubic", **NORMALISED}
    scripted = json.dumps(
        {"family": "torchscript", "path": str(script), "sha256": store.sha256_file(script), **settings}
    )
    parsed = encoders.parse(scripted)
    theirs = encoders.load(scripted, encoders.family(parsed).fetch(parsed), encoders.Machine())
    same(vectors(load(path=str(file), **settings), IMAGES), vectors(theirs, IMAGES))


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x00PK\x03\x04 no network at all")
    with pytest.raises(LookalikeError, match=r"net\.onnx: is not an ONNX file, or is damaged"):
        load(path=str(tmp_path / "net.onnx"), size=SIDE, **NORMALISED)
    with pytest.raises(LookalikeError, match=r"missing\.onnx: no such file"):
        load(path=str(tmp_path / "missing.onnx"), size=SIDE, **NORMALISED)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, r"has no file\. Give one of path, package with file, and checkpoint with file"),
        ({"path": "a.onnx", "package": "b", "file": "c.onnx"}, r"has path and package\."),
        ({"package": "b"}, r"'package' needs file"),
        ({"path": "a.onnx", "file": "c.onnx"}, r"has both path and file\. Leave file out"),
        ({"path": "a.onnx", "url": "https://example.org/a.onnx"}, r"'url' needs path.*and sha256"),
        ({"path": "a.onnx", "mean": [0, 0, 0]}, r"has only one of mean and std\. Give both"),
    ],
)
def test_an_entry_names_one_file(entry: dict[str, Any], said: str) -> None:
    raw = {
        "run": ["x"],
        "datasets": {"d": {"kind": "photo_tiles"}},
        "models": {"m": {"embed": {"family": "onnx", **entry}}},
        "indexes": {"flat": {"factory": "Flat"}},
        "experiments": {"x": {"dataset": "d", "models": ["m"]}},
    }
    with pytest.raises(ConfigError, match=rf"models\.m\.embed: {said}"):
        parse(raw)
