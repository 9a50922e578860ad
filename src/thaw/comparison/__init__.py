"""Runs side by side: what differs, by how much, and whether chance would do."""
