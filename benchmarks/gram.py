"""The symmetric product of the Gram form: its share of the machine's peak of multiply-adds.

    python benchmarks/gram.py [--isas avx2] [--cells "1300 x 4096"] [--again]     # resumes row by row

G = X X^T in float32, n x d as the classes of classes.py have them: ImageNette's latents (d 6,272), the synthetic
classes and their first 1,024 features. The time is that of the whole product as a class has it, packing X into panels
and mirroring the lower triangle included. Useful operations: n (n + 1) / 2 chains of d multiply-adds, thus
n (n + 1) d; what tiles on the diagonal compute beyond it counts as lost. With two threads each has a product of its
own, as classes have side by side: the operations of both over the time until both are done. Every instruction set with
fused multiply-adds that the machine has is forced, and has the peak of the same instruction set and number of threads,
taken before and after each row (peak.py). Results: results/gram.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from common import entry, facts, load_result, save_result
from peak import FLAGS, measured

from ddoq.machine.backend import core

CELLS = {f"{n} x {d}": (n, d) for n, d in ((900, 6272), (1300, 4096), (1300, 1024))}
ISAS = [isa for isa in core.isas() if isa in FLAGS]
SECONDS = 1.0  # of each row


def measure(n: int, d: int, isa: str, threads: int) -> dict[str, Any]:
    """GF/s of as many products side by side as threads."""
    rng = np.random.default_rng(0)
    samples = [rng.standard_normal((n, d), dtype=np.float32) for _ in range(threads)]
    grams = [np.empty((n, n), dtype=np.float32) for _ in samples]
    seconds: list[float] = []
    with ThreadPoolExecutor(threads) as pool:
        while len(seconds) < 10 or sum(seconds) < SECONDS:
            start = time.perf_counter()
            list(pool.map(core.gram, samples, grams, [isa] * threads))
            seconds.append(time.perf_counter() - start)
    operations = threads * n * (n + 1) * d
    return {
        "gflops_median": round(operations / statistics.median(seconds) / 1e9, 1),
        "gflops_max": round(operations / min(seconds) / 1e9, 1),
        "runs": len(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isas", nargs="*", choices=ISAS, default=ISAS)
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=list(CELLS))
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--again", action="store_true", help="measure rows again that are there")
    options = parser.parse_args()
    result = load_result("gram")
    for isa in options.isas:
        machine = entry(result, {**facts(("numpy",)), "instruction_set": isa})
        for threads in options.threads:
            peak = machine.setdefault("peaks", {}).setdefault(str(threads), {})  # the best so far
            for cell in options.cells:
                rows = machine["cells"].setdefault(cell, {})
                if str(threads) not in rows or options.again:
                    rows[str(threads)] = measured(partial(measure, *CELLS[cell], isa, threads), peak, isa, threads)
                    save_result("gram", result)
                row = rows[str(threads)]
                share = 100 * row["gflops_median"] / peak["peak_gflops"]
                print(f"{isa}  {cell}, threads {threads}: {share:.1f} % of the peak, {row}", flush=True)


if __name__ == "__main__":
    main()
