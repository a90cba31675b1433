#!/usr/bin/env python3
"""What a million jobs cost: each figure beside that of an empty directory.

    benches/growth.py BINARY make DIR [--jobs 1000000] [--queues 100] [--gigabytes 5]
"""

import argparse
import os
import sys
import time

from long_history import Server, make


def main():
    options = argparse.ArgumentParser()
    options.add_argument("binary")
    options.add_argument("what", choices=["make"])
    options.add_argument("directory")
    options.add_argument("--jobs", type=int, default=1_000_000)
    options.add_argument("--queues", type=int, default=100)
    options.add_argument("--gigabytes", type=float, default=5)
    args = options.parse_args()
    began = time.monotonic()
    make(Server(os.path.abspath(args.binary), os.path.abspath(args.directory)), args.jobs,
         args.gigabytes, args.queues)
    print(f"made in {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
