"""Which events are left out, and why."""
