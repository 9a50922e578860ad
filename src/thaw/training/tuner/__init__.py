"""Find a learning rate or a batch size by measuring."""
