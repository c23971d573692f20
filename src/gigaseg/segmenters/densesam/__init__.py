"""DenseSAM: SAM's decoder led by features of its encoder instead of prompts, with an object and a boundary head."""
