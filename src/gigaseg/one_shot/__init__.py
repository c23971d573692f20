"""One-shot segmentation: a class is shown once, in a support image with its mask, and sought in others."""
