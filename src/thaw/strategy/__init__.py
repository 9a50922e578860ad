"""Phases and stages -> plan: what trains when, and how fast. Imports no torch."""
