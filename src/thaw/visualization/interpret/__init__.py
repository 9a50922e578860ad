"""Show what a network responds to: Grad-CAM, feature maps, DeepDream."""
