"""Tools that find a learning rate and a batch size for a recipe."""
