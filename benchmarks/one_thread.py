"""Name the variables that give the kernels, OpenMP and BLAS one thread.

They are read when numpy is imported, which this file does not do: threads that wait take CPU time.
"""

THREADS = ("AMPTORCH_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ONE_THREAD = dict.fromkeys(THREADS, "1")
