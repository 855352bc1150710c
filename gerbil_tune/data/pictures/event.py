"""One event as a picture: what every microphone heard, and where the animal was.

Legend: C microphones, T samples, K keypoints, D axes.
"""

import contextlib
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.events import EventSet, check_same_site
from gerbil_tune.data.pictures.arena import draw_arena, marker_of
from gerbil_tune.data.pictures.arena_map import ArenaMap
from gerbil_tune.data.pictures.spectrograms import (
    centred,
    colour_range_db,
    level_db,
    level_text,
    spectrograms_db,
    window_length,
)
from gerbil_tune.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_MICROPHONES = 24
_INK, _MUTED, _FRAME, _WAVE = "#1A1F25", "#59636E", "#9AA3AD", "#33475B"
_DPI = 120
_LEFT, _TOP, _BOTTOM, _RIGHT = 0.75, 1.0, 0.6, 0.3
_SIDE_GAP, _SIDE_WIDTH, _TALLEST_MAP = 0.85, 4.0, 3.4
_LINE = 0.22
_LONGEST_NAME = 60
_NO_RATE = "Sample rate unknown. For ms and kHz add\n--set data/sample_rate_hz=125000"
_NO_ARENA = "Arena unknown. For a map add\n--set data/arena_mm='[572, 356]'"
_NO_LOCATIONS = "The file holds no locations."


@dataclass(frozen=True)
class _Grid:
    """Cells of a waveform above a spectrogram, one a microphone; sizes in inches."""

    columns: int
    rows: int
    cell_width: float
    wave_height: float
    spectrogram_height: float
    gap_width: float = 0.22
    gap_height: float = 0.4

    @property
    def width(self) -> float:
        return self.columns * (self.cell_width + self.gap_width) - self.gap_width

    @property
    def cell_height(self) -> float:
        return self.wave_height + self.spectrogram_height

    @property
    def height(self) -> float:
        return self.rows * (self.cell_height + self.gap_height) - self.gap_height


def draw_event(output: Path, events: EventSet, i: int, data_config: DataConfig) -> Path:
    """Draw waveforms, spectrograms and the arena of one event into a PNG file.

    All waveforms share one scale, and so do all spectrograms. Of more than 24 microphones the first 24 are
    drawn. What neither the file nor the config states is left out, with a note.

    Args:
        output: The file to write; it appears when it is whole.
        events: The set.
        i: Place of the event in it, from 0.
        data_config: ``sample_rate_hz`` and ``arena_mm`` where the file does not state them, ``keypoints``
            to choose and order them.

    Returns:
        ``output``.

    Raises:
        ConfigError: If there is no such event, or the picture cannot be written.
        DatasetError: If a keypoint is unknown or files of the set contradict each other.
    """
    if not 0 <= i < len(events):
        raise ConfigError(
            f"--event is {i}, but {events.files[0].path} has {len(events)} events; valid: 0 to "
            f"{len(events) - 1}"
        )
    if data_config.keypoints is not None:
        events = events.select_keypoints(data_config.keypoints)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure = _draw(_Event(events, i, data_config))
        try:
            figure.savefig(temporary, format="png", dpi=_DPI, pil_kwargs={"compress_level": 4})
            temporary.replace(output)
        except OSError as error:
            raise ConfigError(f"picture {output} cannot be written: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return output


class _Event:
    """All that a picture shows of one event.

    Attributes:
        audio_TC: In the type of the file.
        sample_rate_hz: None where unknown; times are then in samples.
        duration: Milliseconds or samples.
        arena_map: None where the arena is unknown.
        microphones_mm: None where unknown.
        locations_KD: mm, None where the file has none.
    """

    def __init__(self, events: EventSet, i: int, data_config: DataConfig) -> None:
        site = check_same_site(events.files)
        locations = events.locations_mm
        self.events, self.place = events, i
        self.audio_TC = events.read(i)
        self.sample_rate_hz: float | None = data_config.sample_rate_hz or site["sample_rate_hz"]
        per_sample = 1.0 if self.sample_rate_hz is None else 1000.0 / self.sample_rate_hz
        self.duration = len(self.audio_TC) * per_sample
        self.locations_KD = None if locations is None else locations[i].astype(np.float64)
        self.microphones_mm = site["microphones_mm"]
        arena_mm = data_config.arena_mm or site["arena_mm"]
        self.arena_map: ArenaMap | None = None
        if arena_mm is not None:
            self.arena_map = ArenaMap.around(arena_mm, self.microphones_mm, self.locations_KD)

    @property
    def num_shown(self) -> int:
        """Microphones in the picture."""
        return min(self.events.num_microphones, MAX_MICROPHONES)

    def headline(self) -> str:
        """File and number of the event."""
        name = self.events.files[int(self.events.file_numbers[self.place])].path.name
        if len(name) > _LONGEST_NAME:
            name = f"{name[: _LONGEST_NAME - 20]}\N{HORIZONTAL ELLIPSIS}{name[-19:]}"
        number = self.events.describe(self.place).split(" of ")[0]
        kind = "impulse response of " if self.events.is_impulse_response else ""
        return f"{name}: {kind}{number}"

    def facts(self) -> str:
        """Duration, level and where the event comes from."""
        samples = f"{len(self.audio_TC):,} samples"
        facts = [samples if self.sample_rate_hz is None else f"{self.duration:,.1f} ms ({samples})"]
        facts.append(level_text(level_db(self.audio_TC), self.audio_TC.dtype))
        groups, onsets_s = self.events.groups, self.events.onsets_s
        if groups is not None:
            facts.append(f"group {groups[self.place]}")
        if onsets_s is not None and math.isfinite(onsets_s[self.place]):
            facts.append(f"began at {onsets_s[self.place]:,.3f} s")
        if self.num_shown < self.events.num_microphones:
            facts.append(f"{self.num_shown} of {self.events.num_microphones} microphones shown")
        return "   \N{MIDDLE DOT}   ".join(facts)

    def notes(self) -> list[str]:
        """What is missing in the picture, and how to add it."""
        missing = [
            (self.sample_rate_hz, _NO_RATE),
            (self.arena_map, _NO_ARENA),
            (self.locations_KD, _NO_LOCATIONS),
        ]
        return [note for value, note in missing if value is None]


def _grid(num_microphones: int) -> _Grid:
    if num_microphones == 1:
        return _Grid(1, 1, 6.5, 1.2, 3.2)
    if num_microphones <= 4:
        return _Grid(2, math.ceil(num_microphones / 2), 4.3, 0.75, 1.85)
    if num_microphones <= 8:
        return _Grid(2, math.ceil(num_microphones / 2), 4.3, 0.5, 1.15)
    columns = 3 if num_microphones <= 12 else 4
    return _Grid(columns, math.ceil(num_microphones / columns), 2.9, 0.4, 0.9, gap_height=0.34)


def _draw(event: _Event) -> "Figure":
    from matplotlib.figure import Figure

    grid = _grid(event.num_shown)
    width = _LEFT + grid.width + _SIDE_GAP + _SIDE_WIDTH + _RIGHT
    figure = Figure(figsize=(width, 1.0), dpi=_DPI, facecolor="white")
    side = _Side(event, _LEFT + grid.width + _SIDE_GAP)
    height = _TOP + max(grid.height, side.height) + _BOTTOM
    figure.set_size_inches(width, height)
    for text, from_top, size, colour in (
        (event.headline(), 0.4, 14, _INK),
        (event.facts(), 0.66, 10, _MUTED),
    ):
        y = 1 - from_top / height
        figure.text(_LEFT / width, y, text, size=size, color=colour, parse_math=False)
    side.draw(figure, _draw_microphones(figure, grid, event))
    return figure


def _add_axes(figure: "Figure", left: float, top: float, width: float, height: float) -> "Axes":
    """Axes at a place in inches from the left and the upper edge of the picture."""
    full_width, full_height = figure.get_size_inches()
    bottom = full_height - top - height
    axes = figure.add_axes(
        (left / full_width, bottom / full_height, width / full_width, height / full_height)
    )
    axes.tick_params(labelsize=8, color=_FRAME, labelcolor=_MUTED, length=3)
    for spine in axes.spines.values():
        spine.set_color(_FRAME)
        spine.set_linewidth(0.6)
    return axes


def _draw_microphones(figure: "Figure", grid: _Grid, event: _Event) -> Any:
    """Draw all cells; returns one of the spectrograms, for the colour bar."""
    audio_TC = event.audio_TC[:, : event.num_shown]
    window = window_length(event.sample_rate_hz, len(audio_TC))
    power_db = spectrograms_db(audio_TC, window, round(grid.cell_width * _DPI * 0.75))
    low_db, top_db = colour_range_db(power_db)
    waves = [centred(audio_TC[:, channel]) for channel in range(event.num_shown)]
    loudest = max(float(np.abs(wave).max(initial=0.0)) for wave in waves) or 1.0
    highest = 0.5 if event.sample_rate_hz is None else event.sample_rate_hz / 2000
    image = None
    for channel, wave in enumerate(waves):
        row, column = divmod(channel, grid.columns)
        left = _LEFT + column * (grid.cell_width + grid.gap_width)
        top = _TOP + row * (grid.cell_height + grid.gap_height)
        upper = _add_axes(figure, left, top, grid.cell_width, grid.wave_height)
        _draw_wave(upper, wave / loudest, event.duration)
        upper.set_title(f"microphone {channel}", size=8.5, color=_INK, loc="left", pad=3)
        lower = _add_axes(
            figure, left, top + grid.wave_height, grid.cell_width, grid.spectrogram_height
        )
        image = lower.imshow(
            power_db[channel] - top_db,
            origin="lower",
            aspect="auto",
            extent=(0.0, event.duration or 1.0, 0.0, highest),
            cmap="magma",
            vmin=low_db - top_db,
            vmax=0.0,
            interpolation="bilinear",
        )
        is_lowest = channel + grid.columns >= event.num_shown
        _label_axes(lower, event, is_leftmost=column == 0, is_lowest=is_lowest)
    return image


def _label_axes(axes: "Axes", event: _Event, *, is_leftmost: bool, is_lowest: bool) -> None:
    knows_rate = event.sample_rate_hz is not None
    axes.tick_params(labelleft=is_leftmost, labelbottom=is_lowest)
    axes.locator_params(axis="x", nbins=6)
    axes.locator_params(axis="y", nbins=4)
    if is_leftmost:
        axes.set_ylabel("kHz" if knows_rate else "cycles/sample", size=8.5, color=_MUTED)
    if is_lowest:
        axes.set_xlabel("ms" if knows_rate else "samples", size=8.5, color=_MUTED)


def _draw_wave(axes: "Axes", wave_T: npt.NDArray[np.float32], duration: float) -> None:
    """Draw a waveform by the least and the greatest sample of each pixel, as an oscilloscope would."""
    num_pixels = max(1, min(len(wave_T), round(axes.bbox.width)))
    if len(wave_T):
        starts = np.arange(num_pixels) * len(wave_T) // num_pixels
        times = (np.arange(num_pixels) + 0.5) * duration / num_pixels
        low, high = np.minimum.reduceat(wave_T, starts), np.maximum.reduceat(wave_T, starts)
        axes.fill_between(times, low, high, color=_WAVE, linewidth=0.5)
    axes.set_xlim(0.0, duration or 1.0)
    axes.set_ylim(-1.05, 1.05)
    axes.set_axis_off()


class _Side:
    """The column beside the microphones: arena, names of the keypoints, colour scale, notes.

    Attributes:
        height: Inches.
    """

    def __init__(self, event: _Event, left: float) -> None:
        self._event, self._left = event, left
        self._map_size = (0.0, 0.0)
        if event.arena_map is not None:
            reach_x_mm, reach_y_mm = event.arena_map.half_widths_mm
            height = min(_SIDE_WIDTH * reach_y_mm / reach_x_mm, _TALLEST_MAP)
            self._map_size = (height * reach_x_mm / reach_y_mm, height)
        self._lines = self._keypoint_lines()
        num_lines = len(self._lines) + sum(1 + note.count("\n") for note in event.notes())
        self.height = self._map_size[1] + 0.8 + num_lines * _LINE + 0.75

    def draw(self, figure: "Figure", image: Any) -> None:
        """Draw it; ``image`` is the spectrogram whose colours are explained."""
        event, top = self._event, _TOP
        if event.arena_map is not None:
            axes = _add_axes(figure, self._left, top, *self._map_size)
            draw_arena(axes, event.arena_map, event.microphones_mm, event.locations_KD)
            top += self._map_size[1] + 0.8
        for k, text in enumerate(self._lines):
            self._write(figure, top, text, marker_of(k))
            top += _LINE
        for note in event.notes():
            self._write(figure, top, note)
            top += _LINE * (1 + note.count("\n"))
        bar = _add_axes(figure, self._left, top + 0.1, 2.4, 0.11)
        figure.colorbar(image, cax=bar, orientation="horizontal").outline.set_visible(False)
        bar.tick_params(labelsize=8, labelcolor=_MUTED, color=_FRAME, length=3)
        bar.set_xlabel("dB re the loudest", size=8.5, color=_MUTED)

    def _keypoint_lines(self) -> list[str]:
        """Name and place of each keypoint."""
        locations_KD, arena_map = self._event.locations_KD, self._event.arena_map
        if locations_KD is None:
            return []
        lines = []
        for name, location_D in zip(self._event.events.keypoints, locations_KD, strict=True):
            place = ", ".join(
                f"{axis} {value:.0f}" for axis, value in zip("xyz", location_D, strict=False)
            )
            text = f"{place} mm".replace("-", "\N{MINUS SIGN}")
            point = None if arena_map is None else arena_map.show(location_D)
            if not np.isfinite(location_D).all():
                text = "no location"
            elif point is not None and not point.is_inside:
                text = f"{text}  (beyond this map)"
            lines.append(f"{name}:  {text}")
        return lines

    def _write(
        self, figure: "Figure", top: float, text: str, marker: tuple[str, str] | None = None
    ) -> None:
        from matplotlib.lines import Line2D

        width, height = figure.get_size_inches()
        x, y = self._left / width, 1 - top / height
        if marker is not None:
            kind, colour = marker
            at = [x + 0.07 / width], [y - 0.055 / height]
            figure.add_artist(Line2D(*at, marker=kind, color=colour, ms=6, linestyle=""))
            x += 0.22 / width
        colour = _MUTED if marker is None else _INK
        figure.text(x, y, text, va="top", size=8.5, color=colour, parse_math=False)
