"""Chung et al. 2014 rerun: tanh RNN, GRU and LSTM of equal size on polyphonic music, three seeds each, beside the published figures.

    python examples/music/run.py [--data FOLDER] [--only jsb_chorales] [--quick]

Each cell predicts the next step's 88 keys from the steps before; scored by binary cross-entropy summed over keys, a predicted step.
Writes results.json, results.md and results.svg beside this file, and music of the best net as music.mid; needs fastrnn[examples].
"""

import argparse
import json
import platform
import statistics
from pathlib import Path

from play import perform
from report import draw, table
from rich.console import Console
from rich.progress import Progress
from rolls import FOLDER, read

import fastrnn.training as tr

HERE = Path(__file__).parent
DATA = ("jsb_chorales", "nottingham")
CELLS = {  # 100, 46 and 36 units: close to 20,000 parameters each, as in the paper
    "tanh": lambda seed: tr.RNN(88, 100, seed=seed),
    "GRU": lambda seed: tr.GRU(88, 46, reset_after=False, seed=seed),
    "LSTM": lambda seed: tr.LSTM(88, 36, peepholes=True, seed=seed),
}
