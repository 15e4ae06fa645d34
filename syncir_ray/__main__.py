"""`python -m syncir_ray` is the `syncir` command."""

from syncir_ray.cli import main

main()
