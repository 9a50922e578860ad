"""Build the plan of a training from phases and stages: what trains when, and how fast. Does not import torch."""
