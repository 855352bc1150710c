"""Random changes of training events."""
