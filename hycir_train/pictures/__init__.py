"""Retrieved pictures as a page, and figures over training steps as a plot; both open anywhere."""
