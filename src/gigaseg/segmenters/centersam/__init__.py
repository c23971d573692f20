"""CenterSAM: a detector of object centres whose boxes prompt SAM."""
