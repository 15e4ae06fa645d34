"""The frozen models behind the stages, and where their weights come from: plain classes, without Ray."""
