"""A small rendered world whose scenes are known, and small models that see it. The pipeline imports none of it."""
