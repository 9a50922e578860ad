"""Pretrained weights -> backbone -> stages and head."""
