"""SAC (Segment Any Cell): one mask of all nuclei from points that a U-Net finds, by a SAM adapted with LoRA."""
