"""Time loops of training on one instruction set: see _train.pxi."""

from fastrnn.training.native._train import GATES as GATES
from fastrnn.training.native._train import add_outer as add_outer
from fastrnn.training.native._train import project as project
from fastrnn.training.native._train import run as run
from fastrnn.training.native._train import run_cell as run_cell
