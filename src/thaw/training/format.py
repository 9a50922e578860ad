"""The format of checkpoints, apart from what writes them: reading one is to load no Lightning."""

CHECKPOINT_FORMAT = 1  # raised when a checkpoint of an older thaw can no longer be read
