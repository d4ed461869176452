# Time loops of training on one instruction set; setup.py compiles this with its flags.
include "_train.pxi"
