"""Train one run: setup, LightningModule, data loaders, evaluation."""
