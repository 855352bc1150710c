"""HTML pieces of the spot-check page. All text goes through ``escape``; only these functions write tags.

Positions are millimetres, x and y from the arena centre; in an SVG y points down.
Legend: K keypoints, D axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.pictures.arena_map import KEYPOINT_COLORS, ArenaMap, nose_of
from gerbil_tune.data.pictures.spot_check_assets import SCRIPT, STYLE
from gerbil_tune.data.pictures.thumbnails import data_uri, palette, tile_columns
from gerbil_tune.pages.pieces import breakable

_NOSE_SHARE, _POINT_SHARE, _MICROPHONE_SHARE = 0.052, 0.036, 0.044
"""Radius of a dot and side of a square over the larger half width of a map."""
_CARD_PX = {2: 380, 3: 460, 4: 540}
_MAP_PX = {2: 152, 3: 160, 4: 170}


@dataclass(frozen=True, slots=True)
class Card:
    """One event on the page.

    Attributes:
        place: In its set.
        title: Which event it is.
        is_removed: Whether it was removed.
        facts: Duration, level and the like.
        reasons: Name of a filter and what it found, which may be empty.
        tags: Of the buttons that show it.
        thumbnail: PNG of the spectrograms.
    """

    place: int
    title: str
    is_removed: bool
    facts: Sequence[str]
    reasons: Sequence[tuple[str, str]]
    tags: Sequence[str]
    thumbnail: bytes


def event_card(
    card: Card,
    *,
    num_microphones: int,
    keypoints: Sequence[str],
    arena_map: ArenaMap,
    locations_KD: npt.NDArray[np.floating[Any]] | None,
) -> str:
    """An event: title, facts, reasons, spectrograms and map.

    Args:
        card: The event.
        num_microphones: Spectrograms in its picture.
        keypoints: Names of the locations.
        arena_map: What a map shows.
        locations_KD: mm; None where the set has none.
    """
    state = "removed" if card.is_removed else "kept"
    found = "".join(
        f"<li><b>{escape(name)}</b>{': ' if why else ''}{escape(why)}</li>"
        for name, why in card.reasons
    )
    reasons = f'<ul class="why">{found}</ul>' if found else ""
    facts = escape(" \N{MIDDLE DOT} ".join(card.facts))
    alt = f"spectrograms of {num_microphones} microphones"
    sounds = (
        f'<div class="sheet"><img src="{data_uri(card.thumbnail)}" alt="{alt}">'
        f'<div class="numbers" aria-hidden="true">{"<i></i>" * num_microphones}</div></div>'
    )
    ground, css = "", "view sounds"
    if locations_KD is not None:
        ground, css = _map(arena_map, locations_KD, keypoints), "view"
    return (
        f'<article class="event" data-tags="{escape(" ".join(card.tags))}"><header>'
        f'<h3>{escape(card.title)}</h3><span class="badge {state}">{state}</span></header>'
        f'<p class="facts">{facts}</p>{reasons}<div class="{css}">{sounds}{ground}</div></article>'
    )


def _map(
    arena_map: ArenaMap, locations_KD: npt.NDArray[np.floating[Any]], keypoints: Sequence[str]
) -> str:
    """The arena with the keypoints of one event; a point beyond the map is open, at its edge."""
    reach_mm = max(arena_map.half_widths_mm)
    shown = [arena_map.show(location) for location in locations_KD]
    if not any(shown):
        return '<p class="empty">no location</p>'
    nose = nose_of(keypoints)
    corners = " ".join(f"{p.x_mm:.0f},{-p.y_mm:.0f}" for p in shown if p is not None)
    parts = [f'<polyline points="{corners}"/>']
    # The nose last, so that nothing covers it.
    for k in sorted(range(len(shown)), key=lambda k: k == nose):
        point = shown[k]
        if point is None:
            continue
        colour = KEYPOINT_COLORS[k % len(KEYPOINT_COLORS)]
        style = f'fill="{colour}"'
        if not point.is_inside:
            style = f'class="beyond" style="stroke:{colour}"'
        share = _NOSE_SHARE if k == nose else _POINT_SHARE
        place = f'cx="{point.x_mm:.0f}" cy="{-point.y_mm:.0f}" r="{share * reach_mm:.0f}"'
        parts.append(f"<circle {place} {style}><title>{escape(keypoints[k])}</title></circle>")
    return f'{_open_svg(arena_map, "map")}<use href="#arena"/>{"".join(parts)}</svg>'


def _open_svg(arena_map: ArenaMap, css: str) -> str:
    reach_x_mm, reach_y_mm = arena_map.half_widths_mm
    box = f"{-reach_x_mm:.0f} {-reach_y_mm:.0f} {2 * reach_x_mm:.0f} {2 * reach_y_mm:.0f}"
    return f'<svg class="{css}" viewBox="{box}" role="img" aria-label="keypoints in the arena">'


def arena_symbol(
    arena_map: ArenaMap, microphones_mm: Sequence[tuple[float, float, float]] | None
) -> str:
    """Floor and microphones, drawn once for all maps."""
    width_mm, depth_mm = arena_map.arena_mm
    side_mm = _MICROPHONE_SHARE * max(arena_map.half_widths_mm)
    squares = "".join(
        f'<rect class="microphone" x="{x_mm - side_mm / 2:.1f}" y="{-y_mm - side_mm / 2:.1f}"'
        f' width="{side_mm:.1f}" height="{side_mm:.1f}"/>'
        for x_mm, y_mm, _ in microphones_mm or ()
    )
    place = (
        f'x="{-width_mm / 2:g}" y="{-depth_mm / 2:g}" width="{width_mm:g}" height="{depth_mm:g}"'
    )
    return (
        '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
        f'<g id="arena"><rect class="floor" {place}/>{squares}</g></defs></svg>'
    )


def heading(title: str, lead: str) -> str:
    """Title and the line below it."""
    return f'<header><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p></header>'


def note(text: str) -> str:
    """A paragraph of small print."""
    return f'<p class="note">{escape(text)}</p>'


def section(title: str, *content: str) -> str:
    """A section with its heading."""
    return f"<section><h2>{escape(title)}</h2>{''.join(content)}</section>"


def counts_table(rows: Sequence[tuple[str, int, int]], num_events: int) -> str:
    """Bars of how many events each filter removed.

    Args:
        rows: Filter, events that it removed, and how many of them are on the page.
        num_events: Of the whole set.
    """
    most = max((count for _, count, _ in rows), default=0)
    body = "".join(
        f'<tr><td>{breakable(name)}</td><td class="bar">{_bar(count, most)}</td>'
        f'<td class="number">{count:,}</td><td class="number">{count / max(num_events, 1):.1%}</td>'
        f'<td class="number extra">{shown:,}</td></tr>'
        for name, count, shown in rows
    )
    return (
        '<table><thead><tr><th scope="col">filter</th><th scope="col"></th>'
        '<th scope="col" class="number">removed</th><th scope="col" class="number">of all</th>'
        f'<th scope="col" class="number extra">shown</th></tr></thead><tbody>{body}</tbody></table>'
    )


def _bar(count: int, most: int) -> str:
    return f'<span style="width:{100 * count / most:.1f}%"></span>' if count else ""


def buttons(items: Sequence[tuple[str, str, int]]) -> str:
    """Buttons that choose what is shown: tag, label and number of events; hidden without a script."""
    inner = "".join(
        f'<button type="button" data-show="{escape(tag)}" aria-pressed="{str(not place).lower()}">'
        f"{escape(label)} <span>{count}</span></button>"
        for place, (tag, label, count) in enumerate(items)
    )
    return f'<div class="filters" role="group" aria-label="Show" hidden>{inner}</div>'


def colour_scale() -> str:
    """The colours of the spectrograms from background to loudest."""
    stops = ",".join(f"rgb({r},{g},{b})" for r, g, b in palette()[::4].tolist())
    return (
        f'<div class="scale">background <i style="background:linear-gradient(90deg,{stops})"></i>'
        "loudest</div>"
    )


def legend(blocks: Sequence[str]) -> str:
    """Blocks side by side where the page is wide."""
    return f'<div class="legend">{"".join(blocks)}</div>'


def legend_block(text: str, key: str) -> str:
    """Words and, below them, what they speak of."""
    return f"<div><p>{escape(text)}</p>{key}</div>"


def keypoint_legend(keypoints: Sequence[str]) -> str:
    """Colours of the keypoints; the nose is larger."""
    nose = nose_of(keypoints)
    parts = []
    for k, name in enumerate(keypoints):
        colour = KEYPOINT_COLORS[k % len(KEYPOINT_COLORS)]
        dot = f'<circle cx="8" cy="8" r="{6 if k == nose else 4}" fill="{colour}"/>'
        parts.append(
            f'<span><svg viewBox="0 0 16 16" aria-hidden="true">{dot}</svg>{escape(name)}</span>'
        )
    return f'<div class="keys">{"".join(parts)}</div>'


def events_section(title: str, cards: Sequence[str]) -> str:
    """A section of events; nothing where there is none."""
    if not cards:
        return ""
    inner = "\n".join(cards)
    return (
        f'<section class="shown"><h2>{escape(title)}</h2>'
        f'<div class="events">\n{inner}\n</div></section>'
    )


def document(title: str, body: str, num_microphones: int) -> str:
    """A whole page, whose cards are as wide as so many spectrograms need."""
    across = tile_columns(num_microphones)
    card_px, map_px = (sizes[max(across, 2)] for sizes in (_CARD_PX, _MAP_PX))
    sizes = f"--card:{card_px}px;--map:{map_px}px;--tiles:{across}"
    css = ' class="wide"' if across > 2 else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body{css} style="{sizes}">
<main>
{body}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""
