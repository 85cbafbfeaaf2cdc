"""Vectors equal the reference implementation: the checkpoint's processor and model, one image at a time."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from PIL import Image

import tiny
from conftest import REPOSITORY, made_image
from lookalike.embed import encoders, precision
from lookalike.embed.embed import EmbedJob, embed_shard
from lookalike.embed.fetch_weights import fetch_weights
from lookalike.embed.pretrained import load_model
from lookalike.io import content_hashes, images, store
from lookalike.io.formats.tables import EMBEDDINGS, SHARD
from lookalike.job.errors import LookalikeError
from lookalike.job.log import fault_of_the_machine
from lookalike.plan import keys

MACHINE = encoders.Machine(threads=1)
TOLERANCE = 1e-5  # of the largest number of a vector


def files() -> dict[str, bytes]:
    """Image files that decoders and processors may treat differently, by name."""

    def encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **settings)
        return buffer.getvalue()

    rotated = Image.Exif()
    rotated[0x0112] = 6  # the camera was turned by 90 degrees
    transparent = made_image(7, (50, 70))
    transparent.putalpha(made_image(8, (50, 70)).convert("L"))
    deep = Image.fromarray(np.asarray(made_image(9, (61, 47)).convert("L"), np.uint16) * 257)
    return {
        "landscape.png": encoded(made_image(1, (131, 64)), "PNG"),
        "portrait.png": encoded(made_image(2, (41, 97)), "PNG"),
        "odd.jpg": encoded(made_image(3, (33, 31)), "JPEG"),
        "exact.png": encoded(made_image(4, (tiny.SIDE, tiny.SIDE)), "PNG"),
        "small.png": encoded(made_image(5, (9, 13)), "PNG"),
        "grey.png": encoded(made_image(6, (60, 48)).convert("L"), "PNG"),
        "palette.png": encoded(made_image(6, (60, 48)).convert("P"), "PNG"),
        "cmyk.jpg": encoded(made_image(6, (60, 48)).convert("CMYK"), "JPEG"),
        "alpha.png": encoded(transparent, "PNG"),
        "sixteen-bit.png": encoded(deep, "PNG"),
        "rotated.jpg": encoded(made_image(10, (90, 40)), "JPEG", exif=rotated),
    }


FILES = files()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(name: str) -> Path:
        return folder / name if (folder / name).exists() else tiny.MAKERS[name](folder / name)

    return make


def load(
    folder: Path | str, feature: str = "last_hidden_state", pooling: str = "none", **more: Any
) -> encoders.Encoder:
    key = json.dumps(
        {"family": "transformers", "checkpoint": str(folder), "feature": feature, "pooling": pooling, **more}
    )
    entry = encoders.parse(key)
    return encoders.load(key, encoders.family(entry).fetch(entry), MACHINE)


def ours(encoder: encoders.Encoder, *batch: Image.Image) -> np.ndarray:
    return encoder.encode(np.stack([encoder.prepare(image) for image in batch]))


def reference(folder: Path, image: Image.Image, get: Callable[[Any, Any], Any], **processing: Any) -> np.ndarray:
    import torch
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return get(model, processor(images=image, return_tensors="pt", **processing))[0].numpy()


def assert_equal(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


CASES: dict[str, tuple[str, str, str, Callable[[Any, Any], Any]]] = {
    "vit-cls": ("vit", "last_hidden_state", "cls", lambda m, x: m(**x).last_hidden_state[:, 0]),
    "vit-pooler": ("vit", "pooler_output", "none", lambda m, x: m(**x).pooler_output),
    "dinov2-cls": ("dinov2", "last_hidden_state", "cls", lambda m, x: m(**x).last_hidden_state[:, 0]),
    "dinov2-mean": ("dinov2", "last_hidden_state", "mean", lambda m, x: m(**x).last_hidden_state.mean(dim=1)),
    "dinov2-patches": (
        "dinov2",
        "last_hidden_state",
        "mean_patches",
        lambda m, x: m(**x).last_hidden_state[:, 1:].mean(dim=1),
    ),
    "registers-cls": ("dinov2_with_registers", "last_hidden_state", "cls", lambda m, x: m(**x).last_hidden_state[:, 0]),
    "registers-patches": (
        "dinov2_with_registers",
        "last_hidden_state",
        "mean_patches",
        lambda m, x: m(**x).last_hidden_state[:, 4:].mean(dim=1),
    ),
    "registers-gem": (
        "dinov2_with_registers",
        "last_hidden_state",
        "gem",
        lambda m, x: (m(**x).last_hidden_state[:, 4:].clamp(min=1e-6) ** 3).mean(dim=1) ** (1 / 3),
    ),
    "clip": ("clip", "image_features", "none", lambda m, x: m.get_image_features(**x).pooler_output),
    "clip-tokens": ("clip", "last_hidden_state", "cls", lambda m, x: m.vision_model(**x).last_hidden_state[:, 0]),
    "siglip": ("siglip", "image_features", "none", lambda m, x: m.get_image_features(**x).pooler_output),
    "siglip-patches": (
        "siglip",
        "last_hidden_state",
        "mean_patches",
        lambda m, x: m.vision_model(**x).last_hidden_state.mean(dim=1),
    ),
    "efficientnet": (
        "efficientnet",
        "hidden_states[-1]",
        "mean",
        lambda m, x: m(**x, output_hidden_states=True).hidden_states[-1].mean(dim=(2, 3)),
    ),
    "vit-last-state": (
        "vit",
        "hidden_states[-1]",
        "cls",
        lambda m, x: m(**x, output_hidden_states=True).hidden_states[-1][:, 0],
    ),
    "convnext": ("convnext", "pooler_output", "none", lambda m, x: m(**x).pooler_output),
    "convnext-gem": (
        "convnext",
        "last_hidden_state",
        "gem",
        lambda m, x: (m(**x).last_hidden_state.clamp(min=1e-6) ** 3).mean(dim=(2, 3)) ** (1 / 3),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_vectors_equal_processor_and_model_one_image_at_a_time(
    case: str, checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    name, feature, pooling, get = CASES[case]
    folder = checkpoint(name)
    encoder = load(folder, feature, pooling)
    decoded = [images.decode(data) for data in FILES.values()]
    together = ours(encoder, *decoded)
    for row, image in zip(together, decoded, strict=True):
        assert_equal(row, reference(folder, image, get))
    assert encoder.dimension == together.shape[1]
    assert encoder.prepare(decoded[0]).dtype == np.uint8, "the fast path is used"
    assert not [record for record in caplog.records if record.name.startswith("lookalike")], "without a warning"


def test_the_networks_distinguish_images(checkpoint: Callable[[str], Path]) -> None:
    """Otherwise the comparisons above would compare constants."""
    for case in ("vit-cls", "clip", "efficientnet", "convnext"):
        name, feature, pooling, _ = CASES[case]
        a, b = ours(load(checkpoint(name), feature, pooling), made_image(1), made_image(2))
        assert np.abs(a - b).max() > 1e-3 * np.abs(a).max(), case


@pytest.mark.parametrize("case", ["clip", "efficientnet"])
def test_batches_threads_and_shards_change_no_row_beyond_rounding(
    case: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    name, feature, pooling, _ = CASES[case]
    key = json.dumps(
        {"family": "transformers", "checkpoint": str(checkpoint(name)), "feature": feature, "pooling": pooling}
    )
    fetch_weights(key, tmp_path / "weights.json")
    for file, data in FILES.items():
        (tmp_path / file).write_bytes(data)

    def embed(names: list[str], batch_size: int, threads: int) -> dict[str, np.ndarray]:
        rows = {
            "image_id": names,
            "root": [str(tmp_path)] * len(names),
            "path": names,
            "bytes": [len(FILES[name]) for name in names],
            "content_hash": [content_hashes.of(FILES[name]) for name in names],
        }
        store.write_table(pa.table(rows, SHARD.schema()), tmp_path / "shard.parquet", SHARD, {})
        embed_shard(
            EmbedJob(
                shard=str(tmp_path / "shard.parquet"),
                weights=str(tmp_path / "weights.json"),
                out=str(tmp_path / "out.parquet"),
                rejected_out=str(tmp_path / "rejected.parquet"),
                timing_out=str(tmp_path / "timing.json"),
                model="tiny",
                key=key,
                code="c0de",
                batch_size=batch_size,
                threads=threads,
                gpu=False,
            )
        )
        table = store.read_table(tmp_path / "out.parquet", EMBEDDINGS)
        return {row["image_id"]: np.array(row["embedding"], np.float32) for row in table.to_pylist()}

    everything = list(FILES)
    expected = embed(everything, 1, 1)
    fours = embed(everything, 4, 2)  # the last batch is not full
    for actual in (
        fours,
        embed(everything, 64, 1),
        embed(everything[:5], 4, 2) | embed(everything[5:], 4, 1),
    ):
        assert list(actual) == everything
        for file in everything:
            assert_equal(actual[file], expected[file])
    np.testing.assert_array_equal([*embed(everything, 4, 2).values()], [*fours.values()])  # a rerun is bitwise equal


def test_only_one_hidden_state_is_kept_in_memory(checkpoint: Callable[[str], Path]) -> None:
    """All states of EfficientNet-B7 take 0.2 GB per image."""
    encoder = load(checkpoint("efficientnet"), "hidden_states[-1]", "mean")
    calls = []
    encoder.network.register_forward_pre_hook(lambda _, __, arguments: calls.append(arguments), with_kwargs=True)
    ours(encoder, made_image(1), made_image(2))
    assert [arguments.get("output_hidden_states") for arguments in calls] == [None]


@pytest.mark.parametrize("name", ["vit", "dinov2", "clip", "siglip"])
def test_attention_uses_the_fused_kernel(name: str, checkpoint: Callable[[str], Path]) -> None:
    encoder = load(checkpoint(name), pooling="mean")
    called = []
    real = torch.nn.functional.scaled_dot_product_attention

    def counted(*arguments: Any, **settings: Any) -> Any:
        called.append(1)
        return real(*arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
        ours(encoder, made_image(1))
    assert len(called) == tiny.VISION["num_hidden_layers"]


def test_convolutions_run_channels_last(checkpoint: Callable[[str], Path]) -> None:
    encoder = load(checkpoint("efficientnet"), "hidden_states[-1]", "mean")
    inputs = []
    for module in encoder.network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    ours(encoder, made_image(1), made_image(2))
    assert inputs
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in inputs)


# --- preparation ---


@pytest.mark.parametrize("name", ["vit", "dinov2", "clip", "blip2"])
def test_fast_decoding_knows_the_size_that_the_processor_needs(name: str, checkpoint: Callable[[str], Path]) -> None:
    entry: dict[str, Any] = {"family": "transformers", "feature": "last_hidden_state", "pooling": "mean"}
    entry = ({"family": "blip2"} if name == "blip2" else entry) | {"checkpoint": str(checkpoint(name))}
    wide = {"dinov2": (72, 36), "clip": (64, 32)}.get(name, (32, 32))
    for decode in ("full", "fast"):
        key = json.dumps(entry | {"decode": decode})
        parsed = encoders.parse(key)
        needs = encoders.needs(encoders.load(key, encoders.family(parsed).fetch(parsed), MACHINE))
        assert needs is None if decode == "full" else needs and needs((400, 200)) == wide
    assert key_of(decode="fast") != key_of(decode="full") == key_of()


def key_of(**more: Any) -> str:
    entry = {"family": "efficientnet_lite", "variant": "lite0", **more}
    return keys.key(encoders.parse(json.dumps(entry)))


@pytest.mark.parametrize(
    ("overrides", "processing"),
    [
        ({"resize": "squash"}, {"size": {"height": 32, "width": 32}, "do_center_crop": False}),
        ({"resize": "crop"}, {"size": {"shortest_edge": 32}}),
        ({"interpolation": "bilinear"}, {"resample": 2}),
        ({"size": 48}, {"size": {"shortest_edge": 54}, "crop_size": {"height": 48, "width": 48}}),
        (
            {"size": 24, "resize": "squash", "interpolation": "lanczos"},
            {"size": {"height": 24, "width": 24}, "do_center_crop": False, "resample": 1},
        ),
    ],
    ids=str,
)
def test_the_entry_overrides_the_processor(
    overrides: dict[str, Any], processing: dict[str, Any], checkpoint: Callable[[str], Path]
) -> None:
    folder = checkpoint("dinov2")
    encoder = load(folder, pooling="cls", **overrides)
    plain = load(folder, pooling="cls")
    for image in (made_image(1, (131, 64)), made_image(2, (41, 97))):
        expected = reference(folder, image, lambda m, x: m(**x).last_hidden_state[:, 0], **processing)
        (actual,), (default,) = ours(encoder, image), ours(plain, image)
        assert_equal(actual, expected)
        assert np.abs(actual - default).max() > 10 * TOLERANCE * np.abs(default).max(), "the override changes something"


OLD = {"do_resize": True, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("vit-cls", {"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "resample": 2}),
        (
            "clip",
            {
                "feature_extractor_type": "CLIPFeatureExtractor",
                "size": 32,
                "crop_size": 32,
                "do_center_crop": True,
                "resample": 3,
            },
        ),
        ("convnext", {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 64, "crop_pct": 0.875}),
        ("convnext", {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 384, "crop_pct": 0.95}),
    ],
    ids=str,
)
def test_settings_files_of_older_versions_are_understood(
    case: str,
    settings: dict[str, Any],
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Most published checkpoints still have them."""
    name, feature, pooling, get = CASES[case]
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((checkpoint(name) / file).read_bytes())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(OLD | settings))
    encoder = load(tmp_path, feature, pooling)
    image = made_image(1, (131, 64))
    assert_equal(ours(encoder, image)[0], reference(tmp_path, image, get))
    assert encoder.prepare(image).dtype == np.uint8
    assert not [record for record in caplog.records if record.name.startswith("lookalike")]


@pytest.mark.parametrize("case", ["vit-cls", "siglip"])
def test_a_larger_size_reaches_the_network_and_interpolates_position_embeddings(
    case: str, checkpoint: Callable[[str], Path]
) -> None:
    name, feature, pooling, get = CASES[case]
    image = made_image(1, (131, 64))
    (actual,) = ours(load(checkpoint(name), feature, pooling, size=48), image)
    expected = reference(
        checkpoint(name),
        image,
        lambda m, x: get(m, {**x, "interpolate_pos_encoding": True}),
        size={"height": 48, "width": 48},
    )
    assert_equal(actual, expected)


def test_a_larger_size_interpolates_the_position_embeddings_of_clip(checkpoint: Callable[[str], Path]) -> None:
    image = made_image(1, (131, 64))
    (actual,) = ours(load(checkpoint("clip"), "image_features", size=48), image)
    expected = reference(
        checkpoint("clip"),
        image,
        lambda m, x: m.get_image_features(**x, interpolate_pos_encoding=True).pooler_output,
        size={"shortest_edge": 48},
        crop_size={"height": 48, "width": 48},
    )
    assert_equal(actual, expected)


def test_the_processor_is_used_if_the_fast_path_differs(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import BitImageProcessorPil

    resize = BitImageProcessorPil.resize
    # a processor that does more than its settings describe
    monkeypatch.setattr(BitImageProcessorPil, "resize", lambda self, *a, **k: resize(self, *a, **k)[:, ::-1])
    encoder = load(checkpoint("dinov2"), pooling="cls")
    assert "the fast path for preparing images differs from its processor, BitImageProcessorPil" in caplog.text
    image = made_image(1, (131, 64))
    assert encoder.prepare(image).dtype == np.float32
    expected = reference(checkpoint("dinov2"), image, lambda m, x: m(**x).last_hidden_state[:, 0])
    assert_equal(ours(encoder, image)[0], expected)


def test_a_difference_of_one_grey_level_exceeds_float_rounding(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import BitImageProcessorPil

    resize = BitImageProcessorPil.resize

    def change_one_pixel(self: Any, *arguments: Any, **settings: Any) -> Any:
        resized = resize(self, *arguments, **settings).copy()
        resized[0, 5, 7] ^= 1
        return resized

    monkeypatch.setattr(BitImageProcessorPil, "resize", change_one_pixel)
    load(checkpoint("dinov2"), pooling="cls")
    assert "differs from its processor" in caplog.text


def dinov3_vector(folder: Path, image: Image.Image) -> np.ndarray:
    """Follow the processor's settings directly, because the processor needs torchvision."""
    import torch
    from transformers import AutoModel

    settings = json.loads((folder / "preprocessor_config.json").read_text())
    pixels = np.asarray(image.resize((32, 32), Image.Resampling(settings["resample"])), np.float32) / 255
    pixels = (pixels - np.float32(settings["image_mean"])) / np.float32(settings["image_std"])
    with torch.no_grad():
        model = AutoModel.from_pretrained(folder).eval()
        return model(torch.from_numpy(pixels).permute(2, 0, 1)[None]).last_hidden_state[0, 5:].mean(dim=0).numpy()


def test_a_processor_without_pil_backend_is_reproduced_from_its_settings_with_a_warning(
    checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load(checkpoint("dinov3"), pooling="mean_patches")
    assert "DINOv3ViTImageProcessorFast, needs torchvision" in caplog.text
    assert "could not be compared" in caplog.text
    for image in (made_image(1, (131, 64)), made_image(2, (41, 97))):
        assert_equal(ours(encoder, image)[0], dinov3_vector(checkpoint("dinov3"), image))


# Can be imported, so that transformers detects it, and fails when anything in it is called.
TORCHVISION = """
import importlib.abc, importlib.machinery, sys, types

class Poison:
    def __init__(self, *arguments, **settings): pass
    def __call__(self, *arguments, **settings): raise RuntimeError("torchvision was used")
    def __getattr__(self, name):
        if name.startswith("__"): raise AttributeError(name)
        return Poison()

class Module(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        if name.startswith("__"): raise AttributeError(name)
        return Poison()

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.startswith("torchvision.") else None
    def create_module(self, spec): return Module(spec.name)
    def exec_module(self, module): pass

sys.meta_path.insert(0, Finder())
__version__ = "0.99.0"
def __getattr__(name):
    if name.startswith("__"): raise AttributeError(name)
    return Poison()
"""


def test_an_installed_torchvision_changes_nothing(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(TORCHVISION)
    (tmp_path / "torchvision-0.99.0.dist-info").mkdir()
    (tmp_path / "torchvision-0.99.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.99.0\n"
    )
    code = f"""
import json
from transformers import AutoImageProcessor
from test_transformers import load, ours, made_image
folders = {[str(checkpoint(name)) for name in ("dinov2", "dinov3")]!r}
for folder in folders:
    assert AutoImageProcessor.from_pretrained(folder).backend == "torchvision"  # the default that must not be used
print(json.dumps([ours(load(folder, pooling="cls"), made_image(1))[0].tolist() for folder in folders]))
"""
    paths = [tmp_path, *(REPOSITORY / folder for folder in ("tests/unit", "tests", "workflow_scripts"))]
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for name, numbers in zip(("dinov2", "dinov3"), json.loads(result.stdout.splitlines()[-1]), strict=True):
        (expected,) = ours(load(checkpoint(name), pooling="cls"), made_image(1))
        assert_equal(np.array(numbers, np.float32), expected)


# --- errors and warnings ---


@pytest.mark.parametrize(
    ("name", "feature", "pooling", "message"),
    [
        ("convnext", "last_hidden_state", "cls", r"a map without a class token\. Use pooling: mean or gem"),
        ("efficientnet", "last_hidden_state", "mean_patches", r"a map without a class token"),
        ("siglip", "last_hidden_state", "cls", r"has no class token\. Use pooling: mean"),
        ("dinov2", "image_features", "none", r"this architecture has no such feature\. Use pooler_output"),
    ],
)
def test_an_impossible_combination_is_rejected_when_loaded(
    name: str, feature: str, pooling: str, message: str, checkpoint: Callable[[str], Path]
) -> None:
    with pytest.raises(LookalikeError, match=message):
        load(checkpoint(name), feature, pooling)


def test_missing_weights_are_rejected_if_the_vectors_depend_on_them(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "vit"
    tiny.vit(folder)
    expected = ours(load(folder, pooling="cls"), made_image(1))
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: weight for name, weight in weights.items() if "pooler" not in name},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(LookalikeError, match=r"gives NaN .* lacks pooler\.dense\.bias, pooler\.dense\.weight"):
        load(folder, "pooler_output")
    np.testing.assert_array_equal(
        ours(load(folder, pooling="cls"), made_image(1)), expected
    )  # independent of the missing weights


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_on_a_cpu_without_instructions_for_it_falls_back_with_a_warning(
    dtype: str, checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: {"avx2", "avx512f"})
    encoder = load(checkpoint("vit"), pooling="cls", compute_dtype=dtype)
    assert encoder.compute_dtype == "float32"
    assert f"computing in float32, not {dtype}, on the CPU" in caplog.text
    np.testing.assert_array_equal(
        ours(encoder, made_image(1)), ours(load(checkpoint("vit"), pooling="cls"), made_image(1))
    )


def test_a_cpu_with_instructions_for_bfloat16_computes_in_it(
    checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch computes bfloat16 on any CPU, if slowly."""
    monkeypatch.setattr(precision, "cpu_flags", lambda: {"avx2", "avx512_bf16"})
    encoder = load(checkpoint("vit"), pooling="cls", compute_dtype="bfloat16")
    assert encoder.compute_dtype == "bfloat16"
    assert "float32" not in caplog.text
    exact, rounded = (ours(one, made_image(1)) for one in (load(checkpoint("vit"), pooling="cls"), encoder))
    assert 1e-4 < np.linalg.norm(exact - rounded) / np.linalg.norm(exact) < 5e-2
    assert load(checkpoint("vit"), pooling="cls", compute_dtype="float16").compute_dtype == "float32"


def test_the_text_part_is_dropped(checkpoint: Callable[[str], Path]) -> None:
    encoder: Any = load(checkpoint("clip"), "image_features")
    assert not [name for name, _ in encoder.network.named_parameters() if "text" in name]
    assert [name for name, _ in encoder.network.named_parameters() if "visual_projection" in name]


def test_attention_implementation_is_sdpa(checkpoint: Callable[[str], Path]) -> None:
    encoder: Any = load(checkpoint("vit"), pooling="cls")
    assert encoder.network.config._attn_implementation == "sdpa"


def test_code_of_a_checkpoint_is_not_run_without_remote_code(tmp_path: Path) -> None:
    folder = tiny.vit(tmp_path / "vit")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(LookalikeError, match=r"its own Python code\. Read it; if you trust it, set remote_code"):
        load(folder, pooling="cls")
    assert not (tmp_path / "ran").exists()


def test_a_damaged_checkpoint_is_rejected_with_a_remedy(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tiny.vit(tmp_path / "vit")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LookalikeError, match=r"cannot be loaded.*delete them and run fetch_weights again"):
        load(folder, pooling="cls")


# --- full size ---


def architectures() -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Model and processor at full size, by the catalogue's names; random weights."""
    from transformers import (
        BitImageProcessorPil,
        Blip2Config,
        Blip2Model,
        BlipImageProcessorPil,
        CLIPConfig,
        CLIPImageProcessorPil,
        CLIPModel,
        Dinov2Config,
        Dinov2Model,
        EfficientNetConfig,
        EfficientNetImageProcessorPil,
        EfficientNetModel,
        OPTConfig,
        ViTConfig,
        ViTImageProcessorPil,
        ViTModel,
    )

    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    small = OPTConfig(
        vocab_size=500, hidden_size=64, word_embed_proj_dim=64, ffn_dim=128, num_hidden_layers=1, num_attention_heads=2
    )
    square = {"height": 224, "width": 224}
    return {
        "efficientnet-b7": lambda: (
            EfficientNetModel(EfficientNetConfig()),
            EfficientNetImageProcessorPil(size={"height": 600, "width": 600}),
        ),
        "vit-large": lambda: (ViTModel(ViTConfig(**large)), ViTImageProcessorPil()),
        "dinov2-base": lambda: (
            Dinov2Model(Dinov2Config(image_size=518, patch_size=14)),
            BitImageProcessorPil(size={"shortest_edge": 256}),
        ),
        "clip-vit-b32": lambda: (CLIPModel(CLIPConfig()), CLIPImageProcessorPil()),
        "blip2-opt-2.7b": lambda: (
            Blip2Model(Blip2Config(text_config=small.to_dict())).half(),
            BlipImageProcessorPil(size=square),
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dimension"),
    [
        ("efficientnet-b7", 640),
        ("vit-large", 1024),
        ("dinov2-base", 768),
        ("clip-vit-b32", 512),
        ("blip2-opt-2.7b", 768),
    ],
)
def test_the_catalogues_entries_have_the_documented_dimensions_at_full_size(
    name: str, dimension: int, tmp_path: Path
) -> None:
    import torch

    model, processor = architectures()[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    del model
    described = yaml.safe_load((REPOSITORY / "config.yaml").read_text())["models"][name]
    assert described["dimension"] == dimension
    entry = described["embed"]
    key = json.dumps(entry | {"checkpoint": str(tmp_path)})
    encoder = encoders.load(
        key, encoders.family(encoders.parse(key)).fetch(encoders.parse(key)), encoders.Machine(threads=2)
    )
    assert encoder.dimension == dimension
    assert ours(encoder, made_image(1)).shape == (1, dimension)


def test_out_of_memory_while_loading_is_not_reported_as_a_damaged_checkpoint() -> None:
    class Large:
        @staticmethod
        def from_pretrained(**settings: Any) -> None:
            torch.empty(1 << 50)

    with pytest.raises(RuntimeError) as error:
        load_model(Large, "owner/large")
    assert fault_of_the_machine(error.value)
