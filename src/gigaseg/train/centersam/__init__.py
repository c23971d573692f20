"""Training of the `centersam` segmenter's detector."""
