"""Events to look at."""
