"""Spectrograms of all microphones of an event as one small PNG.

Legend: C microphones, T samples, F frequencies, M columns.
"""

import base64
import math
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.pictures.spectrograms import colour_range_db, spectrograms_db, window_length

COLOUR_MAP = "magma"
_SIZES = ((4, 112, 56), (12, 96, 48))
_SMALLEST_SIZE = (80, 40)
_GAP = 2
_NUM_COLOURS = 48
"""More cannot be told apart at this size, and each doubling costs a seventh of the file."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def tile_size(num_microphones: int) -> tuple[int, int]:
    """Width and height of one spectrogram in pixels: 112 x 56, 96 x 48 or 80 x 40, by their number."""
    for most, width, height in _SIZES:
        if num_microphones <= most:
            return width, height
    return _SMALLEST_SIZE


def tile_columns(num_microphones: int) -> int:
    """How many spectrograms stand side by side."""
    if num_microphones <= 4:
        return min(num_microphones, 2)
    return 3 if num_microphones <= 9 else 4


def thumbnail_png(audio_TC: npt.NDArray[Any], sample_rate_hz: float) -> bytes:
    """Draw the spectrograms of an event, in reading order from microphone 0.

    Each shows the whole event from left to right and 0 to half the sample rate from bottom to top. One
    colour scale serves all: from the event's background to its loudest. A pixel is the loudest of what falls
    into it. Gaps are transparent.

    Args:
        audio_TC: One event.
        sample_rate_hz: For the length of the windows.
    """
    num_microphones = audio_TC.shape[1]
    width, height = tile_size(num_microphones)
    window = window_length(sample_rate_hz, len(audio_TC))
    power_db = spectrograms_db(audio_TC, window, width, height)
    low_db, top_db = colour_range_db(power_db)
    shares = ((power_db - low_db) / (top_db - low_db)).clip(0.0, 1.0)
    tiles = 1 + np.round(shares * (_NUM_COLOURS - 1)).astype(np.uint8)[:, ::-1]
    return _encode(_arrange(tiles, tile_columns(num_microphones)))


def data_uri(png: bytes) -> str:
    """An image as a source that needs no file."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def palette() -> npt.NDArray[np.uint8]:
    """Colours of the spectrograms from quiet to loud, uint8 (48, 3)."""
    from matplotlib import colormaps

    colours = colormaps[COLOUR_MAP](np.linspace(0.0, 1.0, _NUM_COLOURS), bytes=True)
    return np.asarray(colours)[:, :3].astype(np.uint8)


def _arrange(tiles: npt.NDArray[np.uint8], columns: int) -> npt.NDArray[np.uint8]:
    """Put tiles (C, H, W) side by side and below each other, with gaps of colour 0."""
    count, height, width = tiles.shape
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP), np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * (height + _GAP), number % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def _encode(sheet: npt.NDArray[np.uint8]) -> bytes:
    """A PNG of palette colours, of which 0 is transparent."""
    height, width = sheet.shape
    # Each row begins with its filter: none, the best for palettes.
    rows = np.pad(sheet, ((0, 0), (1, 0))).tobytes()
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(3) + palette().tobytes()),
        (b"tRNS", b"\0"),
        (b"IDAT", zlib.compress(rows, 6)),
        (b"IEND", b""),
    )
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return _SIGNATURE + b"".join(parts)
