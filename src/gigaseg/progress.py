"""stand-in until the real one lands"""
class Progress:
    def __init__(self, *a): pass
    def __enter__(self): return self
    def __exit__(self, *a): pass
    def advance(self, n=1): pass
