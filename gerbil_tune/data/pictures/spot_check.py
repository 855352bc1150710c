"""The page for a look at what cleaning kept and removed: random events, with their sounds and keypoints.

One file of HTML holds everything and needs no network. Each event costs one PNG of at most 226 x 114 pixels
for 4 microphones and 326 x 250 for 24; 300 events make a page of about 4 MB and 11 MB, and of pure noise, the
worst, of 7 and 20 MB.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from gerbil_tune import __version__
from gerbil_tune.data.events import EventSet
from gerbil_tune.data.pictures import spot_check_page as page
from gerbil_tune.data.pictures.arena_map import ArenaMap, nose_of
from gerbil_tune.data.pictures.spectrograms import level_db, level_text
from gerbil_tune.data.pictures.thumbnails import thumbnail_png
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.pages.pieces import tiles
from gerbil_tune.pages.writing import write_text

_ALL, _KEPT, _REMOVED = "all", "kept", "removed"
_UNNAMED = "unnamed filter"
_SPECTROGRAMS = (
    "Spectrograms: one a microphone, its number in the corner. Time runs over the whole event, frequency "
    "from 0 at the bottom to {highest:g} kHz at the top. All microphones of an event share its colours, "
    "events do not."
)
_ARENA = (
    "Arena from above, to scale: {microphones}keypoints are joined in their order, and {nose} is the large "
    "one. An open dot at the edge lies beyond the map."
)


def write_spot_check(
    path: Path,
    events: EventSet,
    setup: RecordingSetup,
    reasons: Mapping[int, Sequence[str]],
    counts: Mapping[str, int],
    *,
    num_kept: int = 100,
    num_removed: int = 200,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> Path:
    """Write the page.

    Args:
        path: The HTML file; it appears when it is whole.
        events: The set before cleaning.
        setup: Sample rate, arena and microphones.
        reasons: For each removed place of the set the names of the filters that removed it; what a filter
            found may follow after a colon (``"skeleton: nose and head are 312 mm apart"``).
        counts: Events that each filter removed, in the order in which filters are shown.
        num_kept: Kept events to show, drawn at random; all where there are fewer.
        num_removed: Removed events to show, an equal number of each filter as far as there are any.
        seed: Of the draw.
        advance: Told 1 after each of the min(num_kept, kept) + min(num_removed, removed) events.

    Returns:
        ``path``.

    Raises:
        ConfigError: If the file cannot be written.
    """
    counts = _all_counts(reasons, counts)
    filters = list(counts)
    rng = np.random.default_rng(seed)
    removed = choose_removed(reasons, filters, num_removed, rng)
    kept = _choose_kept(len(events), reasons, num_kept, rng)
    cards = []
    for place in [*removed, *kept]:
        cards.append(_card(events, setup, place, reasons.get(place), filters))
        if advance is not None:
            advance(1)
    body = "\n".join(
        (
            _head(events, setup, len(reasons), counts, cards),
            _legend(events, setup),
            _cards(events, setup, filters, cards),
            f"<footer>gerbil_tune {__version__}, drawn with seed {seed}</footer>",
        )
    )
    return _write(path, page.document(_title(events), body, events.num_microphones))


def choose_removed(
    reasons: Mapping[int, Sequence[str]],
    filters: Sequence[str],
    number: int,
    rng: np.random.Generator,
) -> list[int]:
    """Choose removed events so that the filters take turns.

    Args:
        reasons: As in ``write_spot_check``.
        filters: Names of all filters, in the order of their turns.
        number: How many at most.
        rng: Shuffles the events of each filter.

    Returns:
        Different places, ordered by the first of their filters and by place.
    """
    waiting: dict[str, list[int]] = {name: [] for name in filters}
    first: dict[int, int] = {}
    for place in sorted(reasons):
        names = {name for name, _ in _split(reasons[place])}
        first[place] = min(filters.index(name) for name in names)
        for name in names:
            waiting[name].append(place)
    for places in waiting.values():
        rng.shuffle(places)
    chosen: set[int] = set()
    while len(chosen) < number and any(waiting.values()):
        for places in waiting.values():
            while places and places[-1] in chosen:
                places.pop()
            if places and len(chosen) < number:
                chosen.add(places.pop())
    return sorted(chosen, key=lambda place: (first[place], place))


def _choose_kept(
    num_events: int, reasons: Mapping[int, Sequence[str]], number: int, rng: np.random.Generator
) -> list[int]:
    is_kept = np.ones(num_events, dtype=np.bool_)
    is_kept[list(reasons)] = False
    kept = np.flatnonzero(is_kept)
    chosen = rng.choice(kept, size=min(number, len(kept)), replace=False)
    return sorted(chosen.tolist())


def _split(reasons: Sequence[str]) -> list[tuple[str, str]]:
    """Filter and finding of each reason."""
    parts = [reason.partition(":") for reason in reasons]
    return [(name.strip(), why.strip()) for name, _, why in parts] or [(_UNNAMED, "")]


def _all_counts(reasons: Mapping[int, Sequence[str]], counts: Mapping[str, int]) -> dict[str, int]:
    """The counts, and those of filters that only the reasons name."""
    found = {place: {name for name, _ in _split(why)} for place, why in reasons.items()}
    more = Counter(name for names in found.values() for name in names if name not in counts)
    return {**counts, **more}


def _card(
    events: EventSet,
    setup: RecordingSetup,
    place: int,
    reasons: Sequence[str] | None,
    filters: Sequence[str],
) -> page.Card:
    audio_TC = events.read(place)
    found = [] if reasons is None else _split(reasons)
    found.sort(key=lambda part: filters.index(part[0]))
    milliseconds = 1000 * len(audio_TC) / setup.sample_rate_hz
    title = events.describe(place)
    if len(events.files) == 1:
        title = title.split(" of ")[0]
    state = _KEPT if reasons is None else _REMOVED
    own_filters = sorted({filters.index(name) for name, _ in found})
    return page.Card(
        place=place,
        title=title,
        is_removed=reasons is not None,
        facts=(f"{milliseconds:,.1f} ms", level_text(level_db(audio_TC), audio_TC.dtype)),
        reasons=found,
        tags=(_ALL, state, *(_tag(number) for number in own_filters)),
        thumbnail=thumbnail_png(audio_TC, setup.sample_rate_hz),
    )


def _tag(filter_number: int) -> str:
    return f"filter-{filter_number}"


def _count(cards: Sequence[page.Card], tag: str) -> int:
    return sum(tag in card.tags for card in cards)


def _title(events: EventSet) -> str:
    first, *others = (file.path.name for file in events.files)
    more = f" and {len(others)} more file{'s' if len(others) > 1 else ''}" if others else ""
    return f"Spot check of {first}{more}"


def _head(
    events: EventSet,
    setup: RecordingSetup,
    num_removed: int,
    counts: Mapping[str, int],
    cards: Sequence[page.Card],
) -> str:
    """Title, numbers, and the table of the filters."""
    arena = " \N{MULTIPLICATION SIGN} ".join(f"{width:g}" for width in setup.arena_mm)
    several = "s" if setup.num_microphones > 1 else ""
    lead = (
        f"{float(events.lengths.sum()) / setup.sample_rate_hz:,.1f} s of audio, "
        f"{setup.num_microphones} microphone{several} at {setup.sample_rate_hz / 1000:g} kHz, "
        f"arena {arena} mm."
    )
    share = num_removed / max(len(events), 1)
    numbers = (
        (f"{len(events):,}", "events"),
        (f"{len(events) - num_removed:,}", "kept"),
        (f"{num_removed:,}", f"removed, {share:.1%} of all"),
        (
            f"{len(cards):,}",
            f"shown here: {_count(cards, _REMOVED)} removed, {_count(cards, _KEPT)} kept",
        ),
    )
    rows = [
        (name, count, _count(cards, _tag(number)))
        for number, (name, count) in enumerate(counts.items())
    ]
    return "\n".join(
        (
            page.heading(_title(events), lead),
            tiles(numbers),
            page.section(
                "What was removed",
                page.note("An event that fails several filters counts for each of them."),
                page.counts_table(rows, len(events)),
            ),
        )
    )


def _legend(events: EventSet, setup: RecordingSetup) -> str:
    """How to read an event."""
    sounds = _SPECTROGRAMS.format(highest=setup.sample_rate_hz / 2000)
    blocks = [page.legend_block(sounds, page.colour_scale())]
    if events.locations_mm is not None:
        nose = events.keypoints[nose_of(events.keypoints)]
        microphones = "squares are microphones, " if setup.microphones_mm is not None else ""
        text = _ARENA.format(nose=nose, microphones=microphones)
        blocks.append(page.legend_block(text, page.keypoint_legend(events.keypoints)))
    return page.section("How to read it", page.legend(blocks))


def _cards(
    events: EventSet,
    setup: RecordingSetup,
    filters: Sequence[str],
    cards: Sequence[page.Card],
) -> str:
    """Buttons and events, removed ones first."""
    arena_map = ArenaMap.around(setup.arena_mm, setup.microphones_mm)
    locations = events.locations_mm
    drawn = [
        page.event_card(
            card,
            num_microphones=events.num_microphones,
            keypoints=events.keypoints,
            arena_map=arena_map,
            locations_KD=None if locations is None else locations[card.place],
        )
        for card in cards
    ]
    choices = [
        (tag, label, _count(cards, tag))
        for tag, label in (
            (_ALL, "All"),
            (_REMOVED, "Removed"),
            (_KEPT, "Kept"),
            *((_tag(number), name) for number, name in enumerate(filters)),
        )
    ]
    num_removed = _count(cards, _REMOVED)
    return "\n".join(
        (
            page.arena_symbol(arena_map, setup.microphones_mm),
            page.buttons([choice for choice in choices if choice[2]]),
            page.events_section("Removed events", drawn[:num_removed]),
            page.events_section("Kept events", drawn[num_removed:]),
        )
    )


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_text(path, text)
    except OSError as error:
        raise ConfigError(f"page {path} cannot be written: {error.strerror or error}") from error
