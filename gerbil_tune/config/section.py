"""What all sections of a config share: their base class and the types of their leaves."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, model_validator
from pydantic_core import PydanticCustomError

PositiveInt = Annotated[StrictInt, Field(gt=0)]
NonNegativeInt = Annotated[StrictInt, Field(ge=0)]
Seed = Annotated[StrictInt, Field(ge=0)]
# Strict: true and "0.5" are no numbers; 1 is one.
Probability = Annotated[StrictFloat, Field(ge=0.0, le=1.0)]
PositiveFloat = Annotated[StrictFloat, Field(gt=0.0)]
NonNegativeFloat = Annotated[StrictFloat, Field(ge=0.0)]
BelowOne = Annotated[StrictFloat, Field(ge=0.0, lt=1.0)]


class ConfigModel(BaseModel):
    """Base of all sections: no unknown keys, no NaN, no change after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, values: Any) -> Any:
        """Like ``extra="forbid"``, but the report can say which keys there are."""
        if isinstance(values, Mapping):
            unknown = [key for key in values if key not in cls.model_fields]
            if unknown:
                raise PydanticCustomError(
                    "unknown_key",
                    "{first} is not a known key; valid: {valid}",
                    {
                        "first": str(unknown[0]),
                        "unknown": unknown,
                        "valid": ", ".join(cls.model_fields),
                    },
                )
        return values
