"""Compute metrics from labels and predictions."""
