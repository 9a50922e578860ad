"""Compute the output of frozen stages once, cache it and export it."""
