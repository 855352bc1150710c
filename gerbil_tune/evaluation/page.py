"""The page of an evaluation: how good models are on events with known locations, where, and where not.

One file of HTML holds everything, plotly.js included, and needs no network.
"""

import math
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from gerbil_tune import __version__
from gerbil_tune.evaluation import page_texts as texts
from gerbil_tune.evaluation.bootstrap import Interval
from gerbil_tune.evaluation.breakdowns import Breakdown
from gerbil_tune.evaluation.figures import method_colors
from gerbil_tune.evaluation.interval_figures import breakdown_figure, weights_figure
from gerbil_tune.evaluation.page_figures import comparing_figures, maps_of
from gerbil_tune.evaluation.page_tables import (
    breakdown_table,
    comparisons_table,
    methods_table,
    weights_table,
)
from gerbil_tune.evaluation.region_errors import region_figure
from gerbil_tune.evaluation.results import region_size_name
from gerbil_tune.evaluation.summary import STAGES, Evaluation, Summary
from gerbil_tune.evaluation.verdict import judge
from gerbil_tune.evaluation.worst_cards import STYLE as CARD_STYLE
from gerbil_tune.evaluation.worst_cards import cards
from gerbil_tune.evaluation.worst_events import spectrogram_png
from gerbil_tune.pages.pieces import (
    DASH,
    PageFigure,
    colour_key,
    columns,
    commands,
    document,
    figure_block,
    key_value_table,
    paragraph,
    plotly_inside,
    scroll,
    section,
    tiles,
)
from gerbil_tune.units import counted

GENERATOR = "gerbil-tune evaluate"
_HEAD_BYTES = 4096
_MOST_BINS = 20
_PX_PER_BIN = 36
"""Narrower, the marks of several methods are no longer told apart."""
_FIGURES = "columns figures"
_CONTENTS = (
    ("methods", "How good it is"),
    ("training", "What training did"),
    ("maps", "Over the arena"),
    ("regions", "Regions"),
    ("breakdowns", "Which events"),
    ("worst", "Worst events"),
    ("facts", "Models and data"),
)


def is_page(path: Path) -> bool:
    """Whether a file is the page of an evaluation."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    return f'<meta name="generator" content="{GENERATOR}">'.encode() in head


def page(evaluation: Evaluation, summary: Summary) -> str:
    """The whole page as HTML."""
    parts = (
        _header(evaluation, summary),
        _methods(evaluation, summary),
        _training(evaluation, summary),
        _maps(evaluation),
        _regions(evaluation, summary),
        _breakdowns(evaluation, summary),
        _worst(evaluation, summary),
        _facts(evaluation, summary),
    )
    return document(
        f"{evaluation.subject}: evaluation",
        "\n".join(parts),
        plotly_inside(),
        generator=GENERATOR,
        style=CARD_STYLE,
    )


def _header(evaluation: Evaluation, summary: Summary) -> str:
    names = [name for name in summary.scores if name != evaluation.subject]
    beside = f", beside {'; '.join(names)}" if names else ""
    lead = (
        f"How far from the animal the model {evaluation.subject} locates "
        f"{counted(len(evaluation.events), 'call')} with known locations{beside}."
    )
    notices = [f"Written at {summary.written} with gerbil_tune {__version__}."]
    if evaluation.unscored:
        notices.append(
            f"{counted(len(evaluation.unscored), 'event')} could not be scored and "
            f"{'is' if len(evaluation.unscored) == 1 else 'are'} in no number of this page; they are named "
            "at its end."
        )
    links = " ".join(f'<a href="#{name}">{escape(title)}</a>' for name, title in _CONTENTS)
    return (
        f"<header><h1>{escape(evaluation.subject)}: evaluation</h1>{paragraph(lead, 'lead')}"
        f"{paragraph(' '.join(notices), 'notice')}<nav>{links}</nav></header>"
        f"{_tiles(evaluation, summary)}"
    )


def _tiles(evaluation: Evaluation, summary: Summary) -> str:
    scores = summary.scores[evaluation.subject]
    median, p90 = scores["error_median_mm"], scores["error_p90_mm"]
    items = [
        (f"{median.value:.1f} mm", f"median error ({_range(median)})"),
        (f"{p90.value:.1f} mm", f"90th percentile ({_range(p90)})"),
    ]
    if "coverage_95" in scores:
        covered = scores["coverage_95"]
        ends = f"{covered.low:.1%} to {covered.high:.1%}"
        items.append((f"{covered.value:.1%}", f"are inside regions that state 95 % ({ends})"))
    size = summary.further[evaluation.subject].get(region_size_name(evaluation.setup.num_axes))
    if size is not None:
        power, unit = (100, "cm²") if evaluation.setup.num_axes == 2 else (1000, "cm³")
        shown = f"{size / power:,.0f} {unit}" if math.isfinite(size) else DASH
        items.append((shown, "median size of the 95 % regions"))
    return tiles(items)


def _range(interval: Interval) -> str:
    return f"{interval.low:.1f} to {interval.high:.1f}"


def _methods(evaluation: Evaluation, summary: Summary) -> str:
    drawn = (
        f"whole sessions, of which there are {summary.num_groups}"
        if summary.num_groups is not None
        else "single events"
    )
    content = [
        scroll(methods_table(evaluation, summary)),
        paragraph(texts.METHODS.format(draws=summary.num_draws, drawn=drawn), "note"),
    ]
    if summary.comparisons:
        content += ["<h3>Compared on the same events</h3>", _verdicts(evaluation, summary)]
        content += [
            scroll(comparisons_table(evaluation.subject, summary.comparisons)),
            paragraph(texts.PAIRED.format(subject=evaluation.subject), "note"),
        ]
    content.append(columns(*map(figure_block, comparing_figures(evaluation.result)), css=_FIGURES))
    return section("methods", "How good it is", *content)


def _verdicts(evaluation: Evaluation, summary: Summary) -> str:
    sentences = (
        judge(found).sentence(evaluation.subject, name)
        for name, found in summary.comparisons.items()
    )
    return _list(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in sentences)


def _training(evaluation: Evaluation, summary: Summary) -> str:
    missing = [
        paragraph(f"{other.model}, {STAGES[other.stage]} weights: {other.reason}.", "note")
        for other in evaluation.other_weights
        if other.method is None
    ]
    if not summary.by_weights:
        return section("training", "What training did", paragraph(texts.NO_WEIGHTS), *missing)
    colors = method_colors(evaluation.result)
    figure = PageFigure(
        "weights",
        "Median error with the weights of a run",
        texts.WEIGHTS,
        weights_figure(
            {
                model: {
                    STAGES[stage]: scores["error_median_mm"] for stage, scores in stages.items()
                }
                for model, stages in summary.by_weights.items()
            },
            colors,
        ),
    )
    table = scroll(weights_table(summary.by_weights))
    shown = figure_block(figure, colour_key({model: colors[model] for model in summary.by_weights}))
    return section(
        "training",
        "What training did",
        columns(shown, table, css=_FIGURES),
        *missing,
    )


def _maps(evaluation: Evaluation) -> str:
    methods = evaluation.result.methods
    names = {model.name for model in evaluation.models}
    blocks = [
        columns(*map(figure_block, maps_of(evaluation.result, number, f"_{number}")), css=_FIGURES)
        for number, method in reversed(list(enumerate(methods)))
        if method.name in names
    ]
    return section("maps", "Over the arena", *blocks)


def _regions(evaluation: Evaluation, summary: Summary) -> str:
    if not summary.regions:
        return section("regions", "Regions", paragraph(texts.NO_REGIONS))
    figure = PageFigure(
        "region_errors",
        "Is a large region a warning?",
        texts.REGIONS,
        region_figure(
            list(summary.regions), method_colors(evaluation.result), evaluation.setup.num_axes
        ),
    )
    said = []
    for found in summary.regions:
        rank = f"{found.rank_correlation:.2f}" if math.isfinite(found.rank_correlation) else DASH
        infinite = (
            f"; {counted(found.num_infinite, 'region')} without bounds"
            if found.num_infinite
            else ""
        )
        said.append((found.method, f"{rank} over {counted(len(found.size_M), 'event')}{infinite}"))
    ranks = f"<h3>Rank correlation of region and error</h3>{key_value_table(said)}"
    note = paragraph(texts.RANKS, "note")
    return section("regions", "Regions", columns(figure_block(figure), ranks + note, css=_FIGURES))


def _breakdowns(evaluation: Evaluation, summary: Summary) -> str:
    blocks: list[str] = []
    colors = method_colors(evaluation.result)
    for found in summary.breakdowns:
        shown, caption = _shown_bins(found, evaluation.subject)
        figure = PageFigure(
            f"by_{found.name}",
            found.title,
            f"{texts.BREAKDOWNS[found.name]} {caption}".strip(),
            breakdown_figure(found, shown, colors),
            min_width_px=_PX_PER_BIN * len(shown),
        )
        blocks += [
            figure_block(figure, colour_key(colors)),
            scroll(breakdown_table(found, shown), css="tall short"),
        ]
    return section("breakdowns", "Which events", paragraph(texts.BREAKDOWN_LEAD), *blocks)


def _shown_bins(found: Breakdown, subject: str) -> tuple[Sequence[int], str]:
    """Places of the bins to show; of many those where the model in question is worst, and that it is so."""
    count = len(found.labels)
    if count <= _MOST_BINS:
        return range(count), ""
    worst = np.argsort(-found.methods[subject].median_mm_G, kind="stable")[:_MOST_BINS]
    return worst.tolist(), texts.WORST_BINS.format(shown=_MOST_BINS, count=count, subject=subject)


def _worst(evaluation: Evaluation, summary: Summary) -> str:
    pictures = [
        spectrogram_png(
            evaluation.events.read(event.place), event.loudest, evaluation.setup.sample_rate_hz
        )
        for event in summary.worst
    ]
    about = texts.WORST.format(
        number=len(summary.worst),
        subject=evaluation.subject,
        khz=f"{evaluation.setup.sample_rate_hz / 2000:g}",
    )
    return section(
        "worst", "Worst events", paragraph(about), cards(summary.worst, pictures, evaluation.setup)
    )


def _facts(evaluation: Evaluation, summary: Summary) -> str:
    blocks = []
    for model in evaluation.models:
        pairs = [
            ("model", model.uri),
            ("architecture", model.kind),
            ("parameters", f"{model.num_parameters:,}"),
            ("fingerprint of the weights", model.fingerprint),
            ("fingerprint of its training data", model.data_fingerprint or DASH),
        ]
        blocks.append(f"<h3>{escape(model.name)}</h3>{key_value_table(pairs)}")
    blocks.append(f"<h3>Data</h3>{key_value_table(_data_facts(evaluation))}")
    content = [columns(*blocks)]
    if evaluation.unscored:
        content += [
            "<h3>Events that could not be scored</h3>",
            paragraph(texts.UNSCORED),
            scroll(_list(evaluation.unscored), css="tall short"),
        ]
    content += [paragraph(texts.NEXT), commands(*_next_commands(evaluation))]
    return section("facts", "Models and data", *content)


def _data_facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    events, setup = evaluation.events, evaluation.setup
    groups = events.groups
    seconds = float(events.lengths.sum()) / setup.sample_rate_hz
    return [
        ("files", evaluation.result.data_path),
        ("events", f"{len(events):,}"),
        ("sessions", DASH if groups is None else f"{len(np.unique(groups)):,}"),
        ("audio", f"{seconds:,.1f} s"),
        ("microphones", f"{setup.num_microphones} at {setup.sample_rate_hz / 1000:g} kHz"),
        (
            "arena",
            " \N{MULTIPLICATION SIGN} ".join(f"{width:g}" for width in setup.arena_mm) + " mm",
        ),
        ("keypoints", ", ".join(evaluation.result.keypoints)),
        ("fingerprint", events.fingerprint()),
    ]


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>"


def _next_commands(evaluation: Evaluation) -> list[str]:
    uri = shlex.quote(evaluation.models[-1].uri)
    return [f"gerbil-tune predict --model {uri} --data RECORDING.h5 -o predictions.h5"]
