"""Fit linear classifiers and k-NN to frozen features."""
