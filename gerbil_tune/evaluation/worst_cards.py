"""Cards of the worst events: spectrogram, place, and what to type to see more.

Positions are millimetres, x and y from the arena centre; in an SVG y points down.
Letters: K keypoints, D axes.
"""

import math
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gerbil_tune.data.pictures.arena_map import ArenaMap
from gerbil_tune.data.pictures.spot_check_page import arena_symbol
from gerbil_tune.data.pictures.thumbnails import data_uri
from gerbil_tune.evaluation.worst_events import HEIGHT, WIDTH, WorstEvent
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.pages.pieces import commands, key

STYLE = """
:root { --floor: #f1eee6; --wall: #8a919b; --said: #c2410c; }
@media screen and (prefers-color-scheme: dark) {
  :root:not(.paper) { --floor: #262a2e; --wall: #737c86; --said: #ff9a5c; }
}
.events { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
.events { gap: 14px; margin-top: 14px; }
.event { display: flex; flex-direction: column; min-width: 0; }
.event { border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px 14px; }
.event h3 { font-size: 15px; overflow-wrap: anywhere; }
.event .facts { font-size: 13px; color: var(--muted); margin: 0 0 8px; font-variant-numeric: tabular-nums; }
.event img { display: block; width: 100%; height: auto; border-radius: 3px; print-color-adjust: exact; }
.event svg { display: block; width: 100%; max-height: 190px; margin: 8px 0; }
.event pre { margin: auto 0 0; padding: 8px 10px; font-size: 12px; white-space: pre-wrap; }
.event pre { overflow-wrap: anywhere; }
#breakdowns td.name { white-space: normal; }
.floor { fill: var(--floor); stroke: var(--wall); stroke-width: 1.2; vector-effect: non-scaling-stroke; }
.floor { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.microphone { fill: var(--wall); }
.truth { fill: var(--ink); }
.said { stroke: var(--said); fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; }
.miss { stroke: var(--muted); stroke-width: 1; stroke-dasharray: 3 3; vector-effect: non-scaling-stroke; }
.region { stroke: var(--said); fill: var(--said); fill-opacity: .12; stroke-width: 1; }
.region { vector-effect: non-scaling-stroke; }
@media print { .events { grid-template-columns: 1fr 1fr; gap: 8px; } .event { break-inside: avoid; } }
"""
_DOT_SHARE = 0.032
"""Radius of a dot over the larger half width of a map."""


def cards(found: list[WorstEvent], pictures: list[bytes], setup: RecordingSetup) -> str:
    """All cards, under a key of the marks.

    Args:
        found: The events.
        pictures: A PNG each.
        setup: The recording site.
    """
    arena_map = ArenaMap.around(setup.arena_mm, setup.microphones_mm)
    drawn = "\n".join(
        _card(event, picture, arena_map) for event, picture in zip(found, pictures, strict=True)
    )
    symbol = arena_symbol(arena_map, setup.microphones_mm)
    return f'{symbol}{_key()}<div class="events">\n{drawn}\n</div>'


def facts(event: WorstEvent) -> list[str]:
    """What there is to say of an event in a line."""
    said = [f"error {event.error_mm:.0f} mm", f"{event.length_ms:.0f} ms"]
    if math.isfinite(event.snr_db):
        said.append(f"SNR {event.snr_db:.0f} dB")
    if event.group is not None:
        said.append(f"session {event.group}")
    return [*said, f"microphone {event.loudest}"]


def _card(event: WorstEvent, picture: bytes, arena_map: ArenaMap) -> str:
    about = escape(" \N{MIDDLE DOT} ".join(facts(event)))
    alt = f"spectrogram of microphone {event.loudest}"
    return (
        f'<article class="event"><h3>{escape(event.name)}</h3><p class="facts">{about}</p>'
        f'<img src="{data_uri(picture)}" width="{WIDTH}" height="{HEIGHT}" alt="{alt}">'
        f"{_map(event, arena_map)}{commands(event.command)}</article>"
    )


def _map(event: WorstEvent, arena_map: ArenaMap) -> str:
    reach_x_mm, reach_y_mm = arena_map.half_widths_mm
    box = f"{-reach_x_mm:.0f} {-reach_y_mm:.0f} {2 * reach_x_mm:.0f} {2 * reach_y_mm:.0f}"
    radius_mm = _DOT_SHARE * max(reach_x_mm, reach_y_mm)
    parts = [] if event.ellipse_mm2_K22 is None else _ellipses(event)
    for truth_D, predicted_D in zip(event.truth_mm_KD, event.predicted_mm_KD, strict=True):
        truth, said = arena_map.show(truth_D), arena_map.show(predicted_D)
        if truth is None or said is None:
            continue
        ends = f'x1="{truth.x_mm:.0f}" y1="{-truth.y_mm:.0f}" x2="{said.x_mm:.0f}" y2="{-said.y_mm:.0f}"'
        parts.append(f'<line class="miss" {ends}/>')
        parts.append(
            f'<circle class="truth" cx="{truth.x_mm:.0f}" cy="{-truth.y_mm:.0f}" r="{radius_mm:.0f}"/>'
        )
        parts.append(_cross(said.x_mm, -said.y_mm, radius_mm))
    label = f"arena with the true and the predicted place of {event.name}"
    return (
        f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}"><use href="#arena"/>'
        f"{''.join(parts)}</svg>"
    )


def _ellipses(event: WorstEvent) -> list[str]:
    assert event.ellipse_mm2_K22 is not None
    drawn = []
    for centre_D, covariance_22 in zip(event.predicted_mm_KD, event.ellipse_mm2_K22, strict=True):
        short_mm, long_mm, degrees = half_axes(covariance_22)
        place = f"translate({centre_D[0]:.1f} {-centre_D[1]:.1f}) rotate({-degrees:.1f})"
        drawn.append(
            f'<ellipse class="region" rx="{long_mm:.1f}" ry="{short_mm:.1f}" transform="{place}"/>'
        )
    return drawn


def half_axes(covariance_22: NDArray[Any]) -> tuple[float, float, float]:
    """Short and long half axis of an ellipse, and the angle of the long one from x to y in degrees."""
    squared, directions = np.linalg.eigh(covariance_22)
    short, long = np.sqrt(np.maximum(squared, 0.0)).tolist()
    return short, long, math.degrees(math.atan2(directions[1, 1], directions[0, 1]))


def _cross(x: float, y: float, half: float) -> str:
    return (
        f'<path class="said" d="M{x - half:.0f} {y - half:.0f}L{x + half:.0f} {y + half:.0f}'
        f'M{x - half:.0f} {y + half:.0f}L{x + half:.0f} {y - half:.0f}"/>'
    )


def _key() -> str:
    marks = (
        ('<circle class="truth" cx="9" cy="9" r="5"/>', "true place"),
        (_cross(9, 9, 5), "predicted place"),
        ('<ellipse class="region" cx="9" cy="9" rx="8" ry="5"/>', "95 % region"),
        ('<rect class="microphone" x="5" y="5" width="8" height="8"/>', "microphone"),
    )
    return key(marks)
