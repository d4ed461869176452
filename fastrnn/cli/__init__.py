"""The command line: `fastrnn convert | inspect | verify | run | bench | serve | info`.

    main.py      arguments, exit codes
    options.py   options that commands share: the model, its states, constants and sizes
    commands.py  convert and verify
    precision.py verify with small weights: errors, floor and speed
    inspection.py  inspect
    running.py   run: arrays and audio through a model
    audio.py     .wav files
    bench.py     bench: a model timed beside other engines
    subject.py   the model as bench calls it, results compared
    timing.py    calls that take turns
    serve.py     serve: models over HTTP, gRPC and WebSocket
    plot.py      bars, as SVG or PNG
    info.py      the machine: CPU, instruction sets, versions, measured roofline
    console.py   tables and progress (rich), JSON

Exit codes: 0 done; 1 verify or bench found an error past tolerance; 2 wrong usage; 3 a model or data that cannot be used; 4 a package is missing;
130 interrupted.
"""

from fastrnn.cli.main import main

__all__ = ["main"]
