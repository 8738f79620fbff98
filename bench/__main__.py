"""`python -m bench` is `medtransfer`."""

from bench.cli import main

if __name__ == "__main__":
    main()
