"""Data sets, as the configuration describes them: one record a kind."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_serializer, model_validator

from lookalike.config.entry import Entry, UserPath
from lookalike.job.errors import did_you_mean


def _only(*keys: str) -> BeforeValidator:
    """Refuse other keys of a mapping, with a suggestion."""

    def check(value: Any) -> Any:
        for key in value if isinstance(value, Mapping) else ():
            if key not in keys:
                raise ValueError(f"unknown key '{key}'.{did_you_mean(str(key), keys)}")
        return value

    return BeforeValidator(check)


Expected = Annotated[dict[str, Annotated[int, Field(ge=0)]], _only("references", "queries", "training", "pairs")]


class DatasetBase(Entry):
    """What every kind of data set has."""

    parts: ClassVar[tuple[str, ...]] = ("images",)
    made_part: ClassVar[str] = ""  # the part whose images the run makes itself

    k: int = Field(10, ge=1, description="neighbors kept per query")
    shards: dict[str, Annotated[int, Field(ge=1)]] = Field({}, description="shards per part; 1 where not named")
    on_bad_image: Literal["reject", "fail"] = Field("reject", description="list an unreadable picture, or stop at it")
    expect: Expected = Field(
        {}, description="how many there must be of each role, and true pairs; not checked where empty"
    )
    showcase: UserPath | None = Field(
        None, min_length=1, description="folder of outside pictures, to be shown with what they find"
    )

    @property
    def source_parts(self) -> tuple[str, ...]:
        """The parts this data set's pictures come from."""
        return self.parts

    @property
    def creates_images(self) -> bool:
        """Whether the run makes images of it itself."""
        return bool(self.made_part)

    @property
    def has_queries(self) -> bool:
        """Whether an experiment can be run on it."""
        return True

    def tables(self) -> list[str]:
        """Files that sample reads besides the pictures, where they exist: an edited one samples again."""
        return []


class PhotoTiles(DatasetBase):
    """Tiles of the photographs that scikit-image and scikit-learn carry."""

    kind: Literal["photo_tiles"]
    made_part: ClassVar[str] = "images"
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
    about: UserPath | None = Field(None, description="CSV with image_id and columns to break the numbers down by")
    training: UserPath | None = Field(None, description="folder of pictures that are in neither, to normalise scores")
    sample: int | None = Field(None, ge=1, description="take so many references, chosen by a hash of their ids")

    @property
    def source_parts(self) -> tuple[str, ...]:
        others = tuple(part for part in ("queries", "training") if getattr(self, part))
        return ("references", *others) if others else ("images",)

    @property
    def has_queries(self) -> bool:
        return self.queries is not None

    def tables(self) -> list[str]:
        return _existing("", self.truth, self.about)


Strength = Literal["light", "medium", "heavy"]
Operation = Literal[
    "crop", "blur", "jpeg", "rotate", "color", "brightness", "text", "shapes", "flip", "pad", "paste", "grey"
]
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
    "grey",
)


class Copies(DatasetBase):
    """Altered copies of another data set's references, as queries with known matches."""

    kind: Literal["copies"]
    parts: ClassVar[tuple[str, ...]] = ("references", "queries")
    made_part: ClassVar[str] = "queries"
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


class Selection(Entry):
    """Which pictures of a part are taken: ``all``, ``{first: N}`` by their ids, or ``{sample: N, seed: S}``."""

    first: int | None = Field(None, ge=1, description="so many, in the order of their ids")
    sample: int | None = Field(None, ge=1, description="so many, at random")
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _all(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value:
            return value
        if value == "all":
            return {}
        raise ValueError(f"should be all, {{first: N}} or {{sample: N, seed: S}}, found {value!r}.")

    @model_validator(mode="after")
    def _one(self) -> "Selection":
        if self.first and self.sample:
            raise ValueError(
                "'first' and 'sample' exclude each other. Name one of them; where the catalogue names the other, give "
                "the data set a name of its own."
            )
        if self.sample is None and self.seed:
            raise ValueError("'seed' belongs to 'sample'. Add 'sample: N', or remove 'seed'.")
        return self

    @model_serializer(mode="plain")
    def _as_written(self) -> Any:
        named = {"first": self.first, "sample": self.sample, "seed": self.seed or None}
        return {key: value for key, value in named.items() if value is not None} or "all"


Selected = Annotated[Selection, _only("first", "sample", "seed")]


class Published(DatasetBase):
    """A data set that others publish; the user fetches it and puts it into ``root``."""

    root: UserPath = Field(min_length=1, description="the folder that you put the data set into")


GROUND_TRUTH = re.compile(r".*ground_?truth.*\.csv", re.IGNORECASE)


class Disc21(Published):
    """DISC21, the image similarity challenge's data set: altered copies to be found among a million references."""

    kind: Literal["disc21"]
    references: Selected = Selection.model_validate("all")
    queries: Literal["positives", "all", "development", "test"] = "development"
    training: Selected | None = None
    truth: tuple[str, ...] = Field((), description="CSV files of true matches in root; where empty, *ground*truth*.csv")

    @property
    def source_parts(self) -> tuple[str, ...]:
        return ("references", "queries", "training") if self.training else ("references", "queries")

    def tables(self) -> list[str]:
        root = Path(self.root)
        found = root.iterdir() if root.is_dir() and os.access(root, os.R_OK | os.X_OK) else ()
        names = self.truth or sorted(path.name for path in found if GROUND_TRUTH.fullmatch(path.name))
        return _existing(self.root, *names)


class Flickr30k(Published):
    """Flickr30k: photographs of everyday scenes with five captions each."""

    kind: Literal["flickr30k"]
    sample: int | None = Field(None, ge=1, description="so many pictures, at random; all where not given")
    seed: int = 0
    captions: str | None = Field(None, description="the file of captions in root, where it has another name")
    always: tuple[str, ...] = Field(
        (
            "3637013.jpg",
            "3662865.jpg",  # shovelling snow
            "440375442.jpg",  # street cleaning in work clothes
            "1377428277.jpg",  # street festival in rain
            "57193495.jpg",  # costume, white make-up
            "1393947190.jpg",  # reeling silk
        ),
        description="pictures that are always in the sample, and whose neighbors the report shows",
    )

    @model_validator(mode="after")
    def _room(self) -> "Flickr30k":
        if self.sample is not None and self.sample < len(self.always):
            raise ValueError(
                f"a sample of {self.sample} has no room for the {len(self.always)} pictures that are always in it. "
                "Take a larger sample, or name fewer with 'always'."
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
    "flickr_annotations_30k.csv",  # the same as a table
)


class Coco(Published):
    """The validation pictures of COCO 2017, with the objects that are in them."""

    kind: Literal["coco"]
    annotations: str | None = Field(None, description="the instances file in root, where it has another name")

    def tables(self) -> list[str]:
        return _existing(self.root, *([self.annotations] if self.annotations else INSTANCES))[:1]


INSTANCES = (
    "annotations/instances_val2017.json",
    "instances_val2017.json",
    "annotations_trainval2017.zip",  # as distributed; the file is read inside it
    "annotations_trainval2017.tar",
)


def _existing(root: str, *names: str | None) -> list[str]:
    return [str(Path(root) / name) for name in names if name and (Path(root) / name).is_file()]


Dataset = Annotated[PhotoTiles | Folder | Copies | Disc21 | Flickr30k | Coco, Field(discriminator="kind")]
