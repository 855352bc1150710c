"""Experiment tracking and the model registry; the only package that knows MLflow.

``tracker`` (the protocol) and ``memory_tracker`` import nothing heavy. ``store``, ``mlflow_tracker`` and
``model_registry`` import MLflow when they first talk to it, which takes a second or two.
"""
