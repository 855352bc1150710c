"""HTML pieces of pages. All text goes through ``escape``; only these functions write tags."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from gerbil_tune.pages.assets import SCRIPT, STYLE

DASH = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class PageFigure:
    """A figure of a page.

    Attributes:
        name: Also of its file.
        title: Its heading.
        caption: What it shows and how to read it, in plain words.
        figure: From plotly.
        min_width_px: It scrolls sideways where the page is narrower.
        on_paper: Whether it is printed.
    """

    name: str
    title: str
    caption: str
    figure: Any
    min_width_px: int = 0
    on_paper: bool = True


@dataclass(frozen=True, slots=True)
class Cell:
    """A table cell: its text, what it sorts by, and its CSS class."""

    text: str
    value: float | str | None = None
    css: str = ""


def text_cell(text: str, css: str = "name") -> Cell:
    """A cell of text."""
    return Cell(text, css=css)


def number_cell(value: float | None, form: str = ".4g", text: str | None = None) -> Cell:
    """A cell of a number, a dash where there is none."""
    if value is None or not math.isfinite(value):
        return Cell(DASH, "", "number")
    return Cell(format(value, form) if text is None else text, value, "number")


def table(
    headings: Sequence[str],
    rows: Iterable[tuple[Sequence[Cell], bool]],
    *,
    sortable: bool = False,
    classes: Mapping[int, str] = MappingProxyType({}),
) -> str:
    """A table.

    Args:
        headings: Of the columns.
        rows: Cells, and whether the row stands out.
        sortable: Whether a click on a heading sorts.
        classes: CSS class of a heading by its column.
    """
    heads = []
    for column, heading in enumerate(headings):
        label = escape(heading)
        inner = f'<button type="button">{label}</button>' if sortable else label
        css = f' class="{classes[column]}"' if column in classes else ""
        heads.append(f'<th scope="col"{css}>{inner}</th>')
    body = []
    for cells, stands_out in rows:
        css = ' class="best"' if stands_out else ""
        body.append(f"<tr{css}>{''.join(_cell(cell) for cell in cells)}</tr>")
    kind = ' class="sortable"' if sortable else ""
    return (
        f"<table{kind}><thead><tr>{''.join(heads)}</tr></thead><tbody>\n"
        + "\n".join(body)
        + "\n</tbody></table>"
    )


def _cell(cell: Cell) -> str:
    css = f' class="{cell.css}"' if cell.css else ""
    value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
    text = breakable(cell.text) if cell.css == "name" else escape(cell.text)
    return f"<td{css}{value}>{text}</td>"


def key_value_table(pairs: Iterable[tuple[str, str]]) -> str:
    """A table of two columns without a heading."""
    rows = "".join(
        f'<tr><th scope="row">{breakable(key)}</th><td class="name">{breakable(value)}</td></tr>'
        for key, value in pairs
    )
    return f'<table class="pairs"><tbody>{rows}</tbody></table>'


def breakable(text: str) -> str:
    """Text that may break after the separators of paths and names."""
    return re.sub(r"([/_@])", r"\1<wbr>", escape(text))


def paragraph(text: str, css: str = "") -> str:
    """A paragraph."""
    return f'<p class="{css}">{escape(text)}</p>' if css else f"<p>{escape(text)}</p>"


def link(target: str, text: str) -> str:
    """A paragraph that leads to a file beside the page."""
    return f'<p><a href="{escape(quote(target))}">{escape(text)}</a>.</p>'


def commands(*lines: str) -> str:
    """Commands to copy."""
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def figure_block(item: PageFigure, key_of_colours: str = "") -> str:
    """A figure with its heading, perhaps a key of its colours, data and caption."""
    width = f"min-width:{item.min_width_px}px;" if item.min_width_px else ""
    caption = f"<figcaption>{escape(item.caption)}</figcaption>" if item.caption else ""
    height = int(item.figure.layout.height)
    place = f"figure-{item.name}"
    css = "" if item.on_paper else ' class="screen"'
    return (
        f"<figure{css}><h3>{escape(item.title)}</h3>{key_of_colours}"
        f'<div class="scroll"><div class="plot" id="{place}" style="{width}height:{height}px"></div></div>'
        f'{caption}<script type="application/json" data-figure="{place}">{_figure_json(item.figure)}</script>'
        "</figure>"
    )


def _figure_json(figure: Any) -> str:
    """The figure as JSON in which no text can end the script element."""
    spec = json.loads(figure.to_json())
    spec["layout"].pop("template", None)
    text = json.dumps(spec, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def tiles(items: Iterable[tuple[str, str]]) -> str:
    """Large numbers, each over its label."""
    inner = "".join(
        f'<div class="tile"><b>{escape(number)}</b><span>{escape(label)}</span></div>'
        for number, label in items
    )
    return f'<div class="tiles">{inner}</div>'


def gradient(first: str, colours: Sequence[str], last: str) -> str:
    """A legend: colours that flow from the first to the last."""
    bar = f'<i style="background:linear-gradient(90deg,{",".join(colours)})"></i>'
    return f'<p class="gradient">{escape(first)} {bar} {escape(last)}</p>'


def key(marks: Iterable[tuple[str, str]]) -> str:
    """What marks mean: SVG elements in a square of 18, each with its words."""
    inner = "".join(
        f'<span><svg viewBox="0 0 18 18" aria-hidden="true">{mark}</svg>{escape(text)}</span>'
        for mark, text in marks
    )
    return f'<div class="keys">{inner}</div>'


def colour_key(names: Mapping[str, str]) -> str:
    """Which colour is whose, by name; colours are ours, names anybody's."""
    return key(
        (f'<circle cx="9" cy="9" r="5" fill="{colour}"/>', name) for name, colour in names.items()
    )


def columns(*content: str, css: str = "columns") -> str:
    """Blocks side by side where the page is wide."""
    inner = "".join(f"<div>{part}</div>" for part in content)
    return f'<div class="{css}">{inner}</div>'


def scroll(content: str, css: str = "scroll") -> str:
    """A frame that scrolls instead of the page."""
    return f'<div class="{css}">{content}</div>'


def section(identifier: str, title: str, *content: str) -> str:
    """A section with its heading."""
    inner = "\n".join(content)
    return f'<section id="{identifier}"><h2>{escape(title)}</h2>\n{inner}\n</section>'


def plotly_inside() -> str:
    """The element that brings plotly.js within the page."""
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def document(
    title: str,
    body: str,
    plotly_script: str,
    reload_s: float | None = None,
    generator: str = "gerbil-tune report",
    style: str = "",
) -> str:
    """A whole page.

    Args:
        title: Of the browser's tab.
        body: HTML.
        plotly_script: The element that brings plotly.js.
        reload_s: After so long the page loads itself anew; it keeps its place.
        generator: The command that writes it, by which it knows its own pages again.
        style: CSS beside that of all pages.
    """
    reload = (
        "" if reload_s is None else f"setTimeout(() => location.reload(), {1000 * reload_s:.0f});"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="{escape(generator)}">
<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
<main>
{body}
</main>
<noscript><p>The figures of this page need JavaScript.</p></noscript>
{plotly_script}
<script>{SCRIPT}{reload}</script>
</body>
</html>
"""
