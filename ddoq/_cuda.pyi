"""The CUDA part, where it is built: positional arguments (see _backend)."""

def look() -> tuple[str | None, int, int, tuple[tuple[str, int, int, int], ...]]:
    """Tell what there is.

    The runtime's problem or None, the CUDA versions of driver (0: none) and build as 1000 major + 10 minor, and each
    device's name, compute capability (major, minor) and bytes of memory.
    """

def load_cublas(*paths: str) -> None:
    """Load cuBLAS, unless that is done; ImportError with what each attempt said."""
