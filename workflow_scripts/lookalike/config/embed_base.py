"""Settings that the `embed:` entries of several families share, and what identifies their weights and exports."""

import hashlib
import json
import re
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from lookalike.config.entry import Entry

LONGEST_NAME = 150  # characters of a folder's name, without the hash that may follow


class EmbedBase(Entry):
    """Settings that change the vectors, for every family."""

    weights_fields: ClassVar[tuple[str, ...]] = ()  # which, with the family, identify the weights
    export_fields: ClassVar[tuple[str, ...] | None] = None  # which else change an exported network; None: no exports
    exported_as: ClassVar[dict[str, str]] = {}  # fields of the exported entry that have one value for all models
    reusable: ClassVar[bool] = True  # settings, code and weights decide a vector, so that it may be taken from a store

    family: str
    stored_dtype: Literal["float32", "float16"] = Field("float32", description="precision of the stored vectors")
    icc: Literal["ignore", "srgb"] = Field(
        "ignore", description="ignore color profiles, as published models do, or convert images with one to sRGB"
    )

    def weights_key(self) -> str:
        """What identifies a model's weights, as sorted JSON without defaults. Models may share it."""
        fields = {"family", *self.weights_fields}
        return json.dumps(self.model_dump(mode="json", include=fields, exclude_defaults=True), sort_keys=True)

    def export_key(self) -> str | None:
        """What changes a network that is exported for a CPU, or its input: an entry as JSON. None if it is not.

        Models that differ in pooling, decoding or precision share it. Only torch computes in bfloat16 or decodes.
        """
        only_torch = getattr(self, "compute_dtype", "") == "bfloat16" or getattr(self, "decode", "") == "gpu"
        if self.export_fields is None or only_torch:
            return None
        fields = {"family", *self.weights_fields, *self.export_fields}
        settings = self.model_dump(mode="json", include=fields, exclude_defaults=True)
        return json.dumps({**settings, **self.exported_as}, sort_keys=True)

    def export_file(self) -> str | None:
        """The file in which a run records the exported network, if there is one."""
        if (exported := self.export_key()) is None:
            return None
        return f"results/exports/{self.weights_name()}/{hashlib.sha256(exported.encode()).hexdigest()[:12]}/export.json"

    def weights_name(self) -> str:
        """The folder in which the weights are recorded: readable, and unique to this ``weights_key``."""
        label, unambiguous = self._weights_label()
        if unambiguous and len(label) <= LONGEST_NAME:
            return label
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", label).strip("-.")[:LONGEST_NAME]
        return f"{readable}-{hashlib.sha256(self.weights_key().encode()).hexdigest()[:12]}"

    def weights_file(self) -> str:
        """The file in which a run records the weights."""
        return f"results/weights/{self.weights_name()}/weights.json"

    def _weights_label(self) -> tuple[str, bool]:
        """A readable name, and whether it is valid as a file name and unique to these weights."""
        return self.family, True

    @property
    def dimension(self) -> int | None:
        """The dimension of the vectors, if the entry alone determines it; otherwise only the loaded model knows."""
        return None


class Resized(EmbedBase):
    """Settings of families that resize images to a fixed size."""

    decode: Literal["full", "fast"] = Field(
        "full", description="decode JPEG at full size, or at 1/2, 1/4 or 1/8 if that is still large enough"
    )


class OnTorch(Resized):
    """Settings of families that compute with torch."""

    decode: Literal["full", "fast", "gpu"] = Field(  # type: ignore[assignment]
        "full",
        description="decode JPEG at full size, or at 1/2, 1/4 or 1/8 if that is still large enough; "
        "gpu: an experiment, decode and resize on the GPU, which gives other pixels",
    )

    @model_validator(mode="after")
    def _decoders_ignore_profiles(self) -> Self:
        if self.decode == "gpu" and self.icc != "ignore":
            raise ValueError(f"decode: gpu ignores color profiles; use decode: full with icc: {self.icc}")
        return self
