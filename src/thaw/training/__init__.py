"""The LightningModule, the Trainer, the run directory."""
