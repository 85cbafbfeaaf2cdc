"""A model that is not deterministic, or that would fail during a run, is rejected when it is loaded."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_transformers import TOLERANCE, load, ours

import tiny
from conftest import made_image
from lookalike.embed import encoders
from lookalike.io import store
from lookalike.job.errors import LookalikeError

SQUARE = {"height": tiny.SIDE, "width": tiny.SIDE}


def edit(file: Path, **settings: Any) -> None:
    """Change settings of a checkpoint; None removes one."""
    changed = json.loads(file.read_text()) | settings
    file.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))


# --- networks ---


def mae(folder: Path, **settings: Any) -> Path:
    from transformers import ViTImageProcessorPil, ViTMAEConfig, ViTMAEModel

    return tiny.save(folder, ViTMAEModel(ViTMAEConfig(**tiny.VISION, **settings)), ViTImageProcessorPil(size=SQUARE))


def test_a_random_network_is_rejected_and_the_remedy_works(tmp_path: Path) -> None:
    folder = mae(tmp_path / "mae")
    with pytest.raises(
        LookalikeError, match=r"is not deterministic: .* config\.json has mask_ratio: 0\.75: .* to 0\.0"
    ):
        load(folder, pooling="mean")
    with pytest.raises(LookalikeError, match=r"of the 5 tokens are patches\. .* config\.json has mask_ratio: 0\.75: "):
        load(folder, pooling="cls")
    edit(folder / "config.json", mask_ratio=0.0)
    encoder = load(folder, pooling="mean")
    first, second = ours(encoder, made_image(1)), ours(encoder, made_image(1))
    np.testing.assert_allclose(first, second, rtol=0, atol=TOLERANCE * np.abs(first).max())


class Noisy(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.dropout(pixels.mean((2, 3)), 0.5, True)


class Batchwise(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        means = pixels.mean((2, 3))
        return means - means.mean(0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize(
    ("network", "message"), [(Noisy, "is not deterministic"), (Batchwise, "depends on the other images in its batch")]
)
def test_a_scripted_network_that_is_random_or_depends_on_the_batch_is_rejected(
    tmp_path: Path, network: type[torch.nn.Module], message: str
) -> None:
    file = tmp_path / "network.pt"
    torch.jit.save(torch.jit.script(network()), file)
    entry = {"path": str(file), "sha256": store.sha256_file(file), "size": 32, "mean": (0, 0, 0), "std": (1, 1, 1)}
    key = json.dumps({"family": "torchscript", **entry})
    with pytest.raises(LookalikeError, match=rf"network\.pt: .*{message}.*evaluation mode \(network\.eval\(\)\)"):
        encoders.load(key, encoders.family(encoders.parse(key)).fetch(encoders.parse(key)), encoders.Machine())


USERS = """
import numpy as np

class Encoder:
    dimension, device, overlaps, compute_dtype, versions = 3, "CPU", False, "float32", {}
    def __init__(self, draws, whole): self.draws, self.whole = draws, whole
    def prepare(self, image): return np.asarray(image if self.whole else image.resize((4, 4)))
    def encode(self, batch):
        return batch.mean((1, 2), np.float32) + self.draws * np.random.default_rng().uniform(0, 9, (len(batch), 3))

def make(machine, draws=0, whole=False): return Encoder(draws, whole)
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 1}, r"is not deterministic: .*\(network\.eval\(\)\)"),
        ({"whole": True}, r"different shapes, \(200, 331, 3\)"),
    ],
)
def test_a_users_encoder_is_tried_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tried_encoder.py").write_text(USERS)

    def make(options: dict[str, Any]) -> encoders.Encoder:
        key = json.dumps({"family": "python", "factory": "tried_encoder:make", "options": options})
        return encoders.load(key, encoders.family(encoders.parse(key)).fetch(encoders.parse(key)), encoders.Machine())

    assert make({}).dimension == 3
    with pytest.raises(LookalikeError, match=message):
        make(options)


# --- image processors ---


def clip(folder: Path) -> Path:
    edit(tiny.clip(folder) / "preprocessor_config.json", do_center_crop=False)
    return folder


def without_resizing(folder: Path) -> Path:
    edit(tiny.vit(folder) / "preprocessor_config.json", do_resize=False)
    return folder


def yolos(folder: Path) -> Path:
    from transformers import YolosConfig, YolosImageProcessorPil, YolosModel

    config = YolosConfig(**tiny.VISION | {"image_size": [tiny.SIDE] * 2}, num_detection_tokens=5)
    processor = YolosImageProcessorPil(size={"shortest_edge": tiny.SIDE, "longest_edge": 2 * tiny.SIDE})
    return tiny.save(folder, YolosModel(config), processor)


@pytest.mark.parametrize("maker", [clip, without_resizing, yolos])
def test_a_processor_without_a_fixed_size_is_rejected_and_the_remedy_works(
    tmp_path: Path, maker: Callable[[Path], Path]
) -> None:
    folder = maker(tmp_path / "checkpoint")
    file = re.escape(str(folder / "preprocessor_config.json"))
    with pytest.raises(LookalikeError, match=rf"{file}: has no fixed output size: .* resize: squash or crop"):
        load(folder, pooling="mean")
    for resize in ("squash", "crop"):
        encoder = load(folder, pooling="mean", size=tiny.SIDE, resize=resize)
        assert ours(encoder, made_image(1, (131, 64)), made_image(2, (41, 97))).shape == (2, encoder.dimension)


@pytest.mark.parametrize("auto_map", [{"AutoImageProcessor": "own.PadToSquare"}, None])
def test_an_unknown_processor_class_is_rejected_rather_than_replaced(
    tmp_path: Path, auto_map: dict[str, str] | None
) -> None:
    folder = tiny.vit(tmp_path / "vit")
    file = folder / "preprocessor_config.json"
    edit(file, image_processor_type="PadToSquare", auto_map=auto_map)
    (folder / "own.py").write_text(
        "from transformers import ViTImageProcessorPil\n\n"
        "class PadToSquare(ViTImageProcessorPil):\n"
        "    def rescale(self, *arguments, **settings):\n"
        "        return 1 - super().rescale(*arguments, **settings)\n"
    )
    remedy = "if you trust it, set remote_code: true" if auto_map else r"\. Set image_processor_type in a copy"
    message = rf"{re.escape(str(file))}: its image processor, PadToSquare, is not part of transformers, .*{remedy}"
    with pytest.raises(LookalikeError, match=message):
        load(folder, pooling="cls")
    if auto_map:
        own = ours(load(folder, pooling="cls", remote_code=True), made_image(1))
        edit(file, image_processor_type="ViTImageProcessor", auto_map={})
        assert np.abs(own - ours(load(folder, pooling="cls"), made_image(1))).max() > 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": [32]}, r"size: \[32\] should be a number"),
        ({"size": [32, 32, 3]}, r"size: \[32, 32, 3\] should be a number"),
        ({"size": {"height": "32", "width": 32}}, r"size: \{'height': '32', 'width': 32\} should be a number"),
        ({"size": {"longest_edge": 32}}, r"its image processor fails: Size must contain"),
        ({"resample": "bicubic"}, r"resample: 'bicubic' should be the number of a Pillow filter: 0 \(nearest\), 1 "),
        ({"resample": 9}, r"resample: 9 should be the number"),
        ({"image_std": [0, 0, 0]}, r"image_std: \[0, 0, 0\] divides by zero"),
        ({"image_mean": [float("nan")] * 3}, r"image_mean: \[nan, nan, nan\] should be numbers"),
        ({"image_std": [float("inf"), 1, 1]}, r"image_std: \[inf, 1, 1\] should be numbers"),
        ({"image_mean": "half"}, r"image_mean: 'half' should be numbers"),
        ({"image_processor_type": "DINOv3ViTImageProcessorFast", "size": [32]}, r"size: \[32\] should be a number"),
        (
            {"image_processor_type": "DINOv3ViTImageProcessorFast", "resample": None},
            r"resample: None should be the num",
        ),
    ],
    ids=str,
)
def test_invalid_settings_of_a_processor_are_reported_with_their_file(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    file = tiny.vit(tmp_path / "vit") / "preprocessor_config.json"
    edit(file, **settings)
    with pytest.raises(LookalikeError, match=rf"^{re.escape(str(file))}: {message}"):
        load(tmp_path / "vit", pooling="cls")


def test_a_size_of_two_sides_is_height_and_width(tmp_path: Path) -> None:
    folder = tiny.dinov3(tmp_path / "dinov3")
    expected = ours(load(folder, pooling="cls"), made_image(1))
    edit(folder / "preprocessor_config.json", size=[32, 32])
    assert np.array_equal(ours(load(folder, pooling="cls"), made_image(1)), expected)


def imagegpt(folder: Path) -> Path:
    from transformers import ImageGPTConfig, ImageGPTImageProcessorPil, ImageGPTModel

    config = ImageGPTConfig(n_embd=16, n_layer=1, n_head=2, n_positions=64, vocab_size=17)
    colors = np.random.default_rng(0).uniform(-1, 1, (16, 3)).tolist()
    return tiny.save(
        folder, ImageGPTModel(config), ImageGPTImageProcessorPil(clusters=colors, size={"height": 8, "width": 8})
    )


def naflex(folder: Path) -> Path:
    from transformers import Siglip2ImageProcessorPil, Siglip2VisionConfig, Siglip2VisionModel

    config = {key: value for key, value in tiny.VISION.items() if key != "image_size"} | {"num_patches": 16}
    processor = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    return tiny.save(folder, Siglip2VisionModel(Siglip2VisionConfig(**config)), processor)


@pytest.mark.parametrize(("maker", "outputs"), [(imagegpt, "input_ids"), (naflex, "pixel_values, .*spatial_shapes")])
def test_a_processor_without_pixels_is_rejected_with_what_it_returns(
    tmp_path: Path, maker: Callable[[Path], Path], outputs: str
) -> None:
    with pytest.raises(
        LookalikeError, match=rf"preprocessor_config\.json: its image processor, .*, returns {outputs} for an image"
    ):
        load(maker(tmp_path / "checkpoint"), pooling="mean")


# --- feature maps ---


def sam(folder: Path, hidden: int = 32) -> Path:
    from transformers import SamImageProcessorPil, SamVisionConfig, SamVisionModel

    sides = {"num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "patch_size": 8, "window_size": 4}
    config = SamVisionConfig(
        hidden_size=hidden, output_channels=16, global_attn_indexes=[1], mlp_dim=48, num_pos_feats=8, **sides
    )
    edges = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    return tiny.save(folder, SamVisionModel(config), SamImageProcessorPil(**edges))


def test_a_feature_map_is_averaged_over_its_area_in_either_layout(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModel

    folder = sam(tmp_path / "sam")
    image = made_image(1, (131, 64))
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=image, return_tensors="pt").pixel_values
    with torch.no_grad():
        output = AutoModel.from_pretrained(folder).eval()(pixels, output_hidden_states=True)
    last = output.hidden_states[-1]
    assert last.shape == (1, 8, 8, 32)
    for feature, expected in (
        ("hidden_states[-1]", last.mean((1, 2))),
        ("last_hidden_state", output.last_hidden_state.mean((2, 3))),
    ):
        vectors = ours(load(folder, feature, "mean"), image)
        np.testing.assert_allclose(vectors, expected.numpy(), rtol=0, atol=TOLERANCE * expected.abs().max())


def test_a_feature_map_with_ambiguous_channels_is_rejected(tmp_path: Path) -> None:
    folder = sam(tmp_path / "sam", hidden=8)
    with pytest.raises(
        LookalikeError, match=r"map of 8 x 8 x 8 numbers, and it is ambiguous which of them are channels"
    ):
        load(folder, "hidden_states[-1]", "mean")
