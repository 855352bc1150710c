"""What is simulated: the room with its microphones, and the ranges that each event draws from.

A room of one's own is a YAML file; lengths are in millimetres, x and y count from the centre of the
floor, z from the floor::

    name: north-lab
    size_mm: [600, 400, 350]
    sample_rate_hz: 125000
    microphones_mm:
      - [295, 195, 290]
      - [-295, 195, 290]
      - [-295, -195, 290]
      - [295, -195, 290]
    absorption: {walls: 0.15, floor: 0.6, ceiling: 0.9}
    image_order: 12
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt, ValidationError, model_validator

from gerbil_tune.config.load import read_tree
from gerbil_tune.config.section import ConfigModel, PositiveFloat, Probability
from gerbil_tune.errors import ConfigError

Point = tuple[float, float, float]
Range = tuple[float, float]
PositiveRange = tuple[PositiveFloat, PositiveFloat]

_MICROPHONE_INSET_MM = 5.0
_LOWEST_CALL_HZ = 500.0
HIGHEST_PART_OF_RATE = 0.45
"""Calls stay below this part of the sample rate: the Nyquist frequency and a margin."""


class Absorption(ConfigModel):
    """Part of the sound energy that a surface keeps at each reflection, 0 to 1."""

    walls: Probability = 0.147
    floor: Probability = 0.636
    ceiling: Probability = 0.942


class Room(ConfigModel):
    """A box with omnidirectional microphones, and how it is recorded.

    The default image order of 12 reaches 97 % of the energy that order 60 gives in the e1 room; 9 reaches
    93 %, 20 reaches 99 % but takes four times as long.
    """

    name: str = "room"
    size_mm: tuple[
        Annotated[float, Field(ge=100.0)],
        Annotated[float, Field(ge=100.0)],
        Annotated[float, Field(ge=50.0)],
    ] = Field(description="Inner widths along x, y and z, in mm.")
    sample_rate_hz: Annotated[float, Field(ge=4000.0)] = Field(description="Samples a second.")
    microphones_mm: tuple[Point, ...] = Field(
        min_length=2, description="One (x, y, z) a channel, in mm from the centre of the floor."
    )
    absorption: Absorption = Absorption()
    image_order: Annotated[StrictInt, Field(ge=0, le=60)] = Field(
        12, description="Reflections that a path has at most."
    )

    @model_validator(mode="after")
    def _microphones_are_inside(self) -> "Room":
        width, depth, height = self.size_mm
        for channel, (x, y, z) in enumerate(self.microphones_mm):
            if abs(x) > width / 2 or abs(y) > depth / 2 or not 0 <= z <= height:
                raise ValueError(
                    f"microphone {channel} at {(x, y, z)} mm is outside the room, which spans"
                    f" x ±{width / 2:g}, y ±{depth / 2:g}, z 0 to {height:g} mm (x and y count from the"
                    " centre of the floor)"
                )
        return self


class SimulationSpec(ConfigModel):
    """A room and, for everything that varies between events, the range of a uniform draw."""

    room: Room
    keypoints: Literal[1, 2] = Field(1, description="1: the nose; 2: the nose and the head.")
    animals: int = Field(1, ge=1, le=100, description="Animals in the arena, of which one calls.")
    snr_db: Range = Field(
        (5.0, 25.0), description="Mean power of the call over that of the noise, in dB."
    )
    absorption_scale: PositiveRange = Field(
        (0.8, 1.25), description="Factor on the room's absorption; a product above 1 counts as 1."
    )
    source_height_mm: PositiveRange = Field(
        (20.0, 60.0), description="Nose above the floor, in mm."
    )
    duration_ms: PositiveRange = Field(
        (20.0, 200.0), description="Length of a synthetic call, in ms; drawn log-uniformly."
    )
    fundamental_hz: PositiveRange = Field(
        (2000.0, 45000.0), description="Fundamental or centre frequency of a synthetic call, in Hz."
    )
    peak_amplitude: PositiveRange = Field(
        (1e-3, 1e-2), description="Largest value of the noise-free event; drawn log-uniformly."
    )
    noise_exponent: Range = Field(
        (0.0, 1.0), description="Power of the noise falls as 1/f to this: 0 is white, 1 is pink."
    )
    margin_before_ms: PositiveRange = Field((2.0, 6.0), description="Noise before the call, in ms.")
    margin_after_ms: PositiveRange = Field(
        (3.0, 12.0),
        description="What follows, in ms, once the end of the call has reached the farthest corner.",
    )
    wavs: Path | None = Field(None, description="Folder of wav files to use as calls.")

    @model_validator(mode="after")
    def _ranges_make_sense(self) -> "SimulationSpec":
        for name, value in self:
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"{name} must be ordered as low, high; received {value}")
        if self.source_height_mm[1] >= self.room.size_mm[2]:
            raise ValueError(
                f"source_height_mm reaches {self.source_height_mm[1]:g} mm, and the room is only"
                f" {self.room.size_mm[2]:g} mm high; lower it"
            )
        limit_hz = HIGHEST_PART_OF_RATE * self.room.sample_rate_hz
        if not _LOWEST_CALL_HZ <= self.fundamental_hz[0] < limit_hz:
            raise ValueError(
                f"fundamental_hz must start between {_LOWEST_CALL_HZ:g} and {limit_hz:g} Hz"
                f" ({HIGHEST_PART_OF_RATE:g} of the sample rate); received {self.fundamental_hz}"
            )
        return self

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """The body points written to the file, in order."""
        return ("nose", "head")[: self.keypoints]


def _in_corners(size_mm: Point, height_mm: float) -> tuple[Point, ...]:
    """Four microphones in the order of the predecessor's files: 1 0 over 2 3, seen from above."""
    x, y = size_mm[0] / 2 - _MICROPHONE_INSET_MM, size_mm[1] / 2 - _MICROPHONE_INSET_MM
    return ((x, y, height_mm), (-x, y, height_mm), (-x, -y, height_mm), (x, -y, height_mm))


def _along_walls(size_mm: Point, per_wall: int, height_mm: float) -> tuple[Point, ...]:
    """Evenly spread microphones on the four walls: north, west, south, east."""
    width, depth, _ = size_mm
    x, y = width / 2 - _MICROPHONE_INSET_MM, depth / 2 - _MICROPHONE_INSET_MM
    along = [(index + 0.5) / per_wall - 0.5 for index in range(per_wall)]
    return (
        *((part * width, y, height_mm) for part in along),
        *((-x, part * depth, height_mm) for part in along),
        *((part * width, -y, height_mm) for part in along),
        *((x, part * depth, height_mm) for part in along),
    )


_E1_MM = (571.5, 355.6, 368.3)
_E2_MM = (914.4, 1218.2, 609.6)
_E3_MM = (615.0, 615.0, 425.0)

PRESETS: Mapping[str, Room] = {
    "e1": Room(
        name="e1",
        size_mm=_E1_MM,
        sample_rate_hz=125_000.0,
        microphones_mm=_in_corners(_E1_MM, 290.0),
    ),
    "e2": Room(
        name="e2",
        size_mm=_E2_MM,
        sample_rate_hz=192_000.0,
        microphones_mm=_along_walls(_E2_MM, 2, 600.0),
    ),
    "e3": Room(
        name="e3",
        size_mm=_E3_MM,
        sample_rate_hz=250_000.0,
        microphones_mm=_along_walls(_E3_MM, 6, 240.0),
    ),
}
"""The three arenas of the lab, by name."""


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    message = problem["msg"].removeprefix("Value error, ")
    field = ".".join(str(part) for part in problem["loc"])
    if not field:  # A rule over several fields names them itself.
        return message
    received = "" if problem["type"] == "missing" else f"; received {problem['input']!r}"
    return f"field {field}: {message[0].lower()}{message[1:]}{received}"


def load_room(path: Path) -> Room:
    """Read a room from a YAML file; the module's docstring shows one.

    Args:
        path: The YAML file.

    Raises:
        ConfigError: If the file cannot be read, is no YAML mapping, or breaks a rule of ``Room``.
    """
    values = read_tree(path)
    try:
        return Room(**{"name": path.stem} | {str(key): value for key, value in values.items()})
    except ValidationError as error:
        raise ConfigError(f"room file {path}: {_first_problem(error)}") from error


def make_spec(room: Room, **options: Any) -> SimulationSpec:
    """Build a ``SimulationSpec`` from its fields, with errors for people.

    Args:
        room: The room.
        **options: Any other field of ``SimulationSpec``.

    Raises:
        ConfigError: If a field is unknown or breaks a rule.
    """
    try:
        return SimulationSpec(room=room, **options)
    except ValidationError as error:
        raise ConfigError(f"simulation: {_first_problem(error)}") from error
