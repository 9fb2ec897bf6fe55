"""Training: the loop, evaluation, accounts and the run folder. Models and loaders are passed in."""
