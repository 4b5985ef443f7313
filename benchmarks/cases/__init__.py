"""One benchmark case a file; `python benchmarks/run.py --list` names them."""
