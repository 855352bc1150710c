"""Distributed hyperparameter search for networks that localize rodent vocalizations."""

__version__ = "0.1.0"
