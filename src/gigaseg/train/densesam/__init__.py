"""Training of DenseSAM."""
