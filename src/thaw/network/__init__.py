"""Source weights -> backbone -> stages + head."""
