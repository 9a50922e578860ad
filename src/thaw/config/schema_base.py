"""The base class of the schema and the types that its modules share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat
from pydantic import StringConstraints as Text

NonEmptyStr = Annotated[str, Text(min_length=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Checksum = Annotated[str, Text(pattern=r"^(md5|sha1|sha256):[0-9a-f]+$")]
Interval = Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)]
ImageSize = Annotated[int, Field(ge=16, le=2048)]
CropFraction = Annotated[float, Field(gt=0, le=1)]
ReplacedLayers = Literal["last", "classifier"]
Initialization = Literal["torch", "xavier", "kaiming", "zero"]
Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh"]


class StrictModel(BaseModel):
    """Reject unknown keys, convert nothing silently ("5" is no number), and forbid changes after validation.

    The string below a field is its description in the configuration reference and in the JSON schema. `reference.py`
    reads it from the source when it is needed; pydantic's `use_attribute_docstrings` would read it at every start.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)
