"""Use a checkpoint: load, predict, evaluate, explain, export."""
