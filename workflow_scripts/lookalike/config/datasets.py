"""Data sets as the configuration describes them: one record per kind."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_serializer, model_validator

from lookalike.config.entry import Entry, UserPath
from lookalike.job.errors import did_you_mean


def _only(*keys: str) -> BeforeValidator:
    """Reject other keys of a mapping, with a suggestion."""

    def check(value: Any) -> Any:
        for key in value if isinstance(value, Mapping) else ():
            if key not in keys:
                raise ValueError(f"unknown key '{key}'.{did_you_mean(str(key), keys)}")
        return value

    return BeforeValidator(check)


ROLES = ("references", "queries", "training", "pairs")
PARTS = ("images", "references", "queries", "training", "showcase")
Expected = Annotated[
    dict[str, Annotated[int, Field(ge=0)]],
    _only(*ROLES),
    Field(json_schema_extra={"propertyNames": {"enum": [*ROLES]}}),
]


class DatasetBase(Entry):
    """Settings of every kind of data set."""

    parts: ClassVar[tuple[str, ...]] = ("images",)
    made_part: ClassVar[str] = ""  # the part whose images the run generates

    k: int = Field(10, ge=1, description="neighbors kept per query")
    shards: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="shards per part, 1 by default", json_schema_extra={"propertyNames": {"enum": [*PARTS]}}
    )
    on_bad_image: Literal["reject", "fail"] = Field(
        "reject", description="what to do with an unreadable image: list it as rejected, or stop the run"
    )
    expect: Expected = Field(
        {}, description="exact number of images per role and of true pairs; a run stops at any other; empty: no check"
    )
    near_duplicates: bool = Field(
        True, description="find files that show the same image (decodes every image once more); off: do not"
    )
    showcase: UserPath | None = Field(
        None, min_length=1, description="folder of outside images that the report shows with their neighbors"
    )

    @property
    def source_parts(self) -> tuple[str, ...]:
        """The parts that the images of this data set come from."""
        return self.parts

    @property
    def creates_images(self) -> bool:
        """Whether the run generates some of its images."""
        return bool(self.made_part)

    @property
    def has_queries(self) -> bool:
        """Whether it can be evaluated by an experiment."""
        return True

    def tables(self) -> list[str]:
        """Existing files that the sample stage reads besides the images: editing one samples again."""
        return []


class PhotoTiles(DatasetBase):
    """Tiles of the photographs that come with scikit-image and scikit-learn."""

    kind: Literal["photo_tiles"]
    made_part: ClassVar[str] = "images"
    tile: int = Field(144, ge=16, le=1024, description="side of a tile, in pixels")

    @property
    def has_queries(self) -> bool:
        return False


class Folder(DatasetBase):
    """Your own images: a folder of references and, optionally, queries with their true matches."""

    kind: Literal["folder"]
    root: UserPath = Field(min_length=1, description="folder of the references, searched recursively")
    queries: UserPath | None = Field(None, description="folder of the queries")
    truth: UserPath | None = Field(None, description="CSV with the columns query_id,reference_id")
    same: str | None = Field(
        None,
        min_length=1,
        description="what makes two images right for each other: `folder` (the subfolder that they are in), or a "
        "column of about; every image is then a query",
    )
    about: UserPath | None = Field(None, description="CSV with image_id and columns to break the numbers down by")
    training: UserPath | None = Field(
        None, description="folder of images that are neither references nor queries, for score normalisation"
    )
    sample: int | None = Field(
        None, ge=1, description="number of references to use, selected by a hash of their ids; all by default"
    )

    @property
    def source_parts(self) -> tuple[str, ...]:
        others = tuple(part for part in ("queries", "training") if getattr(self, part))
        return ("references", *others) if others else ("images",)

    @model_validator(mode="after")
    def _labelled_or_with_queries(self) -> "Folder":
        if self.same and (self.queries or self.truth):
            raise ValueError(
                "has 'same', which makes every image a query, and also 'queries' or 'truth'. Keep 'same' if the right "
                "answers are those of the query's class, or remove it."
            )
        if self.same and self.same != "folder" and not self.about:
            raise ValueError(
                f"'same: {self.same}' is a column of the table 'about', which is missing. Add 'about', or use "
                "'same: folder' if each class has a folder of its own."
            )
        return self

    def tables(self) -> list[str]:
        return _existing("", self.truth, self.about)


Strength = Literal["light", "medium", "heavy"]
Operation = Literal[
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
    "grey",
    "sticker",
    "screenshot",
    "perspective",
    "noise",
    "pixelate",
    "collage",
    "webp",
    "avif",
    "meme",
]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
DEFAULT_OPERATIONS = OPERATIONS[:12]  # a key omits the default, so later operations must never be added to it


class Copies(DatasetBase):
    """Altered copies of another data set's references, as queries with known matches."""

    kind: Literal["copies"]
    parts: ClassVar[tuple[str, ...]] = ("references", "queries")
    made_part: ClassVar[str] = "queries"
    of: str = Field(description="name of the data set whose references are copied")
    queries: int = Field(150, ge=1, description="copies that have a match")
    without_match: int = Field(0, ge=0, description="copies of images that are excluded from the references")
    seed: int = Field(0, description="seed of the alterations: another seed makes other copies")
    operations: tuple[Operation, ...] = Field(
        DEFAULT_OPERATIONS, min_length=1, description="alterations to choose from"
    )
    strengths: tuple[Strength, ...] = Field(
        ("light", "medium", "heavy"), min_length=1, description="strengths of the alterations to choose from"
    )
    chains: float = Field(0.3, ge=0, le=1, description="fraction of copies with two or three alterations in a row")
    max_side: int = Field(
        1024, ge=32, description="longest side of a copy in pixels; larger ones are scaled down, as sharing sites do"
    )


class Selection(Entry):
    """Which images of a part to use: `all`, `{first: N}` in the order of their ids, or `{sample: N, seed: S}`."""

    first: int | None = Field(None, ge=1, description="number of images, in the order of their ids")
    sample: int | None = Field(None, ge=1, description="number of images, at random")
    seed: int = Field(0, description="seed of the random sample")

    @model_validator(mode="before")
    @classmethod
    def _all(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value:
            return value
        if value == "all":
            return {}
        raise ValueError(f"should be all, {{first: N}} or {{sample: N, seed: S}}, found {value!r}.")

    @model_validator(mode="after")
    def _first_or_sample(self) -> "Selection":
        if self.first and self.sample:
            raise ValueError(
                "'first' and 'sample' exclude each other. Keep one of them; if the other comes from the catalogue's "
                "entry of this name, give yours another name."
            )
        if self.sample is None and self.seed:
            raise ValueError("'seed' belongs to 'sample'. Add 'sample: N', or remove 'seed'.")
        return self

    @model_serializer(mode="plain")
    def _as_written(self) -> Any:
        settings = {"first": self.first, "sample": self.sample, "seed": self.seed or None}
        return {key: value for key, value in settings.items() if value is not None} or "all"

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        mapping = handler(core)
        return {"description": mapping.pop("description"), "anyOf": [{"const": "all"}, mapping]}


Selected = Annotated[Selection, _only("first", "sample", "seed")]


class Published(DatasetBase):
    """A published data set, which the user downloads to ``root``."""

    root: UserPath = Field(min_length=1, description="folder that you downloaded the data set to")


GROUND_TRUTH = re.compile(r".*ground_?truth.*\.csv", re.IGNORECASE)


class Disc21(Published):
    """DISC21 (Image Similarity Challenge 2021): find the originals of altered copies among a million references."""

    kind: Literal["disc21"]
    references: Selected = Field(Selection.model_validate("all"), description="references to search")
    queries: Literal["positives", "all", "development", "test"] = Field(
        "development", description="queries to use; positives: development queries whose original is a reference"
    )
    training: Selected | None = Field(
        None, description="training images, for score normalisation and to train indexes; none by default"
    )
    truth: tuple[str, ...] = Field((), description="CSV files of true matches in root; *ground*truth*.csv by default")

    @property
    def source_parts(self) -> tuple[str, ...]:
        return ("references", "queries", "training") if self.training else ("references", "queries")

    def tables(self) -> list[str]:
        root = Path(self.root)
        files = root.iterdir() if root.is_dir() and os.access(root, os.R_OK | os.X_OK) else ()
        names = self.truth or sorted(path.name for path in files if GROUND_TRUTH.fullmatch(path.name))
        return _existing(self.root, *names)


class Flickr30k(Published):
    """Flickr30k: photographs of everyday scenes with five captions each."""

    kind: Literal["flickr30k"]
    sample: int | None = Field(None, ge=1, description="number of images, at random; all by default")
    seed: int = Field(0, description="seed of the random sample")
    captions: str | None = Field(None, description="caption file in root, if it has an unusual name")
    always: tuple[str, ...] = Field(
        (
            "3637013.jpg",
            "3662865.jpg",  # shovelling snow
            "440375442.jpg",  # street cleaning in work clothes
            "1377428277.jpg",  # street festival in rain
            "57193495.jpg",  # costume, white make-up
            "1393947190.jpg",  # reeling silk
        ),
        description="images that are always in the sample, and whose neighbors the report shows",
    )

    @model_validator(mode="after")
    def _sample_has_room(self) -> "Flickr30k":
        if self.sample is not None and self.sample < len(self.always):
            raise ValueError(
                f"a sample of {self.sample} has no room for the {len(self.always)} images that are always in it. "
                "Use a larger sample, or list fewer under 'always'."
            )
        return self

    def tables(self) -> list[str]:
        known = [f"{folder}{name}" for folder in ("", "flickr30k_images/") for name in CAPTIONS]
        return _existing(self.root, *([self.captions] if self.captions else known))[:1]


CAPTIONS = (
    "results_20130124.token",
    "results.csv",
    "captions.txt",
    "dataset_flickr30k.json",  # Karpathy's splits
    "flickr_annotations_30k.csv",  # the same, as a table
)


class Coco(Published):
    """The validation images of COCO 2017, with their annotated objects."""

    kind: Literal["coco"]
    annotations: str | None = Field(None, description="instances file in root, if it has an unusual name")

    def tables(self) -> list[str]:
        return _existing(self.root, *([self.annotations] if self.annotations else INSTANCES))[:1]


INSTANCES = (
    "annotations/instances_val2017.json",
    "instances_val2017.json",
    "annotations_trainval2017.zip",  # as distributed; the file is read from inside it
    "annotations_trainval2017.tar",
)


def _existing(root: str, *names: str | None) -> list[str]:
    return [str(Path(root) / name) for name in names if name and (Path(root) / name).is_file()]


Dataset = Annotated[PhotoTiles | Folder | Copies | Disc21 | Flickr30k | Coco, Field(discriminator="kind")]
