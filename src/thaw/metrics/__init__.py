"""Numbers computed from labels and predictions."""
