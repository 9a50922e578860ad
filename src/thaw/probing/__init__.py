"""Linear classifiers and k-NN on frozen features."""
