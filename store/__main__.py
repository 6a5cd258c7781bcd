"""`python -m store` is the command `store`."""

from store.cli.main import main

if __name__ == "__main__":
    main(prog_name="store")
