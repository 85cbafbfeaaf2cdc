"""How timm prepares images for a network, as the settings of an image processor: without timm or torchvision.

``timm.data.create_transform`` makes it from a network's ``pretrained_cfg``; tests compare the two where timm is
installed.
"""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lookalike.embed import checkpoints
from lookalike.job.errors import LookalikeError

NAME = "timm"
DEFAULTS: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 0.875,
    "crop_mode": "center",
}


def check_installed(checkpoint: str, timm: bool = False) -> None:
    """Raise LookalikeError for a timm network, as its name may tell, if timm is not installed."""
    spec = importlib.util.find_spec("timm")
    installed = (
        spec is not None and spec.origin is not None
    )  # a folder of that name, such as one of checkpoints, is not
    if (timm or checkpoint.startswith("timm/")) and not installed:
        raise LookalikeError(f"{checkpoint}: is a timm network. Install that package: pip install timm")


def settings_of(pretrained_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for ``preprocess.geometry_of`` and ``Values.of``; no size where the geometry cannot be followed."""
    config = {name: pretrained_cfg.get(name) or default for name, default in DEFAULTS.items()}
    interpolation = str(config["interpolation"]).upper()
    settings: dict[str, Any] = {
        "image_processor_type": NAME,
        "do_resize": True,
        "resample": int(Image.Resampling[interpolation]) if interpolation in Image.Resampling.__members__ else None,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": config["mean"],
        "image_std": config["std"],
    }
    return settings | _crop(config["input_size"], config["crop_pct"], config["crop_mode"])


def loading(folder: Path) -> dict[str, Any]:
    """What ``AutoModel.from_pretrained`` has to be told to load a timm checkpoint; nothing for any other.

    timm's newest versions write ``num_classes`` twice, and transformers passes both on, which fails.
    """
    if not checkpoints.read_settings(folder / "config.json").get("pretrained_cfg"):
        return {}
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    config.model_args = {name: value for name, value in (config.model_args or {}).items() if name != "num_classes"}
    return {"config": config}


def _crop(input_size: Sequence[int], share: float, mode: str) -> dict[str, Any]:
    _, height, width = input_size
    larger = [math.floor(side / share) for side in (height, width)]
    crop = {
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "round_crop_offset": True,  # torchvision rounds half a pixel to the even side; transformers cuts it off
    }
    if mode == "squash" and share <= 1:
        return {"size": {"height": larger[0], "width": larger[1]}, **crop}
    if mode == "center" and share <= 1 and height == width:
        return {"size": {"shortest_edge": larger[0]}, **crop}
    return {"size": None}  # borders in the mean's color, and other rare ones
