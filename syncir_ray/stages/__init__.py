"""One file a stage. A stage's work is a plain callable, a table in and a table out; none of them knows Ray."""
