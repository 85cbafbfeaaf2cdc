"""What a model is, for people: shown in listings and the report. None of it changes a vector."""

from pydantic import Field

from lookalike.config.entry import Entry


class About(Entry):
    """Facts about a model, for people."""

    license: str = Field("", description="licence of the weights")
    parameters: int | None = Field(None, ge=1, description="number of parameters of the image part, such as 86_600_000")
    image_size: int | None = Field(None, ge=1, description="side of the images that the network sees, in pixels")
    trained_on: str = Field("", description="training data, if it matters to a data set of the catalogue")
    gated: bool = Field(False, description="whether the Hub requires that you accept its terms before the download")
    note: str = Field("", description="anything else to know before using it")

    @property
    def summary(self) -> str:
        """All of it in one line; empty if nothing is known."""
        size = f"{self.image_size} px" if self.image_size else ""
        trained = f"trained on {self.trained_on}" if self.trained_on else ""
        parameters = f"{millions(self.parameters)} parameters" if self.parameters else ""
        return ", ".join(filter(None, (parameters, size, self.license, trained, self.note)))


def millions(parameters: int | None) -> str:
    """A number of parameters, such as ``86.6 M``; empty if unknown."""
    if not parameters:
        return ""
    return f"{parameters / 1e6:.1f} M" if parameters < 1e8 else f"{parameters / 1e6:,.0f} M"
