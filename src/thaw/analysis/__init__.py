"""What a trained network has to say: metrics, and the pictures of a run."""
