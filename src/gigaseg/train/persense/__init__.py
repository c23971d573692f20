"""Training of PerSense's density regressor."""
