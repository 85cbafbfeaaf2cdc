"""Data sets, as the configuration describes them: one record a kind."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lookalike.config.entry import Entry, UserPath


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
