"""Slides: any gigapixel input behind one interface, one module a reader.

`open_slide` and the readers are imported from their modules, so that `import gigaseg.slides` stays light.
"""
