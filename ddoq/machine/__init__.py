"""The machine: compiled code, threads, GPU, devices, memory, random streams, interrupts."""
