"""thaw: transfer learning in image classification, from a config to a run that explains itself."""
