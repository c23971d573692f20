"""PerSense: all objects that look like one that was shown, by density maps whose peaks prompt SAM."""
