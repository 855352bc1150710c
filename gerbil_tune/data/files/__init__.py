"""Files of events: what is in them, how their audio is mapped, and how they are written."""
