"""The working grid of a slide, its foreground and its tile store."""
