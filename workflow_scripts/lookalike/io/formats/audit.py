"""What is wrong about wrong answers: verdicts of the AUDIT table, and their counts in the metrics of a model."""

from pydantic import BaseModel, ConfigDict

SAME_SCENE, OTHER, UNREADABLE, NOT_AUDITED = "same scene", "other", "unreadable", "not audited"
SAME_IMAGE = "same image"
BY_COLUMN, BY_FEATURES = "scene", "features"


class AuditPair(BaseModel):
    """A miss whose first neighbor shows the same image or scene as the true match."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    query: str
    match: str
    reference: str
    verdict: str  # same image, same scene
    inliers: int | None = None  # places that agree, where local features decided
    mirrored: bool = False


class Audit(BaseModel):
    """The queries whose first neighbor is wrong, by what it shows: ``misses`` is the sum of the four.

    ``other`` includes queries for which nothing was found. ``not_audited`` are beyond the limit of the audit; then
    metrics of scenes have no value. ``pairs`` are some of the same image and of the same scene, for the report.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    misses: int
    same_image: int
    same_scene: int
    other: int
    not_audited: int
    pairs: list[AuditPair]
