"""The slide viewer: the slide's picture straight from its file, and on it all that was found.

A slide's outlines and measurements are packed once for the browser (`gigaseg.viewer.pack`); `gigaseg.viewer.server`
serves them with pictures that are rendered as they are asked for, `gigaseg.viewer.folder` writes both as files.
"""
