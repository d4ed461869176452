"""The command line: `fastrnn convert | inspect | verify | run | info`.

    main.py      arguments, exit codes
    commands.py  convert, inspect, verify
    running.py   run: arrays and audio through a model
    info.py      the machine: CPU, instruction sets, versions, measured roofline
    console.py   tables and progress (rich), JSON

Exit codes: 0 done; 1 verify found an error past tolerance; 2 wrong usage; 3 a model or data that cannot be used; 4 a package is missing.
"""

from fastrnn.cli.main import main

__all__ = ["main"]
