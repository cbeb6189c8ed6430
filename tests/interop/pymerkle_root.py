"""Runs inside pymerkle's virtualenv: entry bundles on standard input, one hex root per prefix asked for."""

from __future__ import annotations

import sys

from pymerkle import InmemoryTree


def main() -> None:
    sizes = {int(size) for size in sys.argv[1:]}
    bundle = sys.stdin.buffer.read()
    tree = InmemoryTree(algorithm="sha256")
    while bundle:
        length = int.from_bytes(bundle[:2], "big")
        tree.append_entry(bundle[2 : 2 + length])
        bundle = bundle[2 + length :]
        if tree.get_size() in sizes:
            print(tree.get_size(), tree.get_root().hex())


if __name__ == "__main__":
    main()
