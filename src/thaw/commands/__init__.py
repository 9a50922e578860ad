"""The verbs of `thaw` other than training."""
