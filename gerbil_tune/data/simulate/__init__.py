"""Simulated recordings: rodent calls in a reverberant box, as a file of events.

``PRESETS`` holds the rooms of the lab and ``load_room`` reads another; ``make_spec`` adds what varies between
events; ``simulate`` writes the file.
"""

from gerbil_tune.data.simulate.rooms import PRESETS, Room, SimulationSpec, load_room, make_spec
from gerbil_tune.data.simulate.writer import simulate

__all__ = ["PRESETS", "Room", "SimulationSpec", "load_room", "make_spec", "simulate"]
