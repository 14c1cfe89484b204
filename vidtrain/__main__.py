"""`vidtrain`, `python -m vidtrain` and `torchrun -m vidtrain`."""


def main() -> None:
    """The program; a Ctrl-C while it is still being imported ends it like one later on."""
    try:
        from vidtrain.shell import cli
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    cli.main()


if __name__ == "__main__":
    main()
