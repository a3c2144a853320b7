"""Imported before numba: gives it as many threads as torch uses at that moment.

Numba's pool, started by the first kernel, sets the number of OpenMP threads of the thread that calls it, and torch
shares that setting. A larger pool would thus undo `torch.set_num_threads`, and with other processes on the cores the
threads of torch then wait for each other by spinning: training was seen to be 50 times slower.
"""

import os

import torch

os.environ.setdefault("NUMBA_NUM_THREADS", str(torch.get_num_threads()))
