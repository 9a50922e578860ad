"""Outputs of frozen stages: computed once, cached, exported."""
