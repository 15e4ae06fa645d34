"""`python -m hycir_train` is the command line of training and evaluation."""

from hycir_train.cli import main

main()
