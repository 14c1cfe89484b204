"""`python -m vidtrain` and `torchrun -m vidtrain`."""

if __name__ == "__main__":
    try:
        from vidtrain.cli import main
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    main()
