"""Plots, explanations of a network, and HTML pages."""
