"""Training of SAC."""
