/* Forgets one cell's definitions, so that the next can make its own. */
#undef CELL
#undef CELL_ACC
#undef CELL_GX
#undef CELL_XSLOTS
#undef CELL_GH
#undef CELL_HSLOTS
#undef CELL_PAIRS
#undef CELL_RELU
#undef CELL_W1
#undef CELL_W2
#undef CELL_W
#undef CELL_SECOND
