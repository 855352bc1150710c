"""Batch prediction: from files of events and a bundle to files of locations with their uncertainty."""
