"""Events on disk: formats, sets of events, splits, shards, batches and checks.

Nothing is imported here, so that reading a file's facts does not load torch.
"""
