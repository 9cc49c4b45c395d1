"""All classes of ImageNet's size quantised on a GPU, beside other libraries: time, distortion, share of the roofline.

    python benchmarks/cuda_quantize.py                          # 1,000 classes of 1,300 x 4,096, k 50; resumes by row
    python benchmarks/cuda_quantize.py --device cpu --classes 3 --shape 200 64 --k 5 --methods ddoq torch   # a trial

Data: for each class 64 blobs and noise of their size, made on the device and left there, in float16 and float32. Each
method has the whole job, from samples on the device to points on the device, and its own start: greedy k-means++ for
ddoq ("ddoq": the default, the best of 4 starts and single-point moves; "ddoq, Lloyd": one start, Lloyd alone, what the
others do) and for plain torch, which has the same algorithm batched over 50 classes at a time; the default of each
other library, which goes through the classes one by one and is left out where it is not installed. "ddoq, CPU": the C
core on `--cpu-classes` of the classes, from host memory, scaled up to all. "ddoq, from the host": samples and points
there, the copies in the time.

Time: of 5 runs, by the host's clock round a synchronised call; the first one, which loads, is left out. Distortion: by
one function for all. Roofline: the seconds that the floor's work takes at the measured peaks of this device (a product
of 8,192 in the samples' type, a copy of 2 GiB): the product's 2 n^2 d, or its bytes where these take longer, and the
bytes of all else, G's own traffic counted: G written once and read by guard and sums, a row a candidate of the seeding,
S three times an iteration, the samples once more for the points. Results: results/cuda_quantize.json.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import facts, load_result, save_result

import ddoq

RUNS, CHUNK, MOST_ITERATIONS = 5, 50, 300
Points = torch.Tensor  # (classes, k, d)
Method = Callable[[torch.Tensor, int, int], Points]
ITERATIONS: list[float] = []  # of ddoq's calls: means over the classes


def synthetic(classes: int, n: int, d: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    """(classes, n, d)"""
    generator = torch.Generator(device).manual_seed(0)
    X = torch.empty(classes, n, d, dtype=dtype, device=device)
    for one in X:
        blobs = torch.randn(64, d, generator=generator, device=device)
        which = torch.randint(64, (n,), generator=generator, device=device)
        one.copy_(blobs[which] + torch.randn(n, d, generator=generator, device=device))
    return X


def with_ddoq(device: str, **options: Any) -> Method:
    def method(X: torch.Tensor, k: int, seed: int) -> Points:
        classes, n, d = X.shape
        rows, y = X.reshape(classes * n, d), np.repeat(np.arange(classes), n)
        q = ddoq.quantize_classes(rows, y, k, random_state=seed, device=device, **options)
        ITERATIONS.append(float(q.n_iter.mean()))
        return torch.as_tensor(q.points).reshape(classes, k, d)

    return method


def from_host(device: str) -> Method:
    """Samples and points in the host's memory."""
    kept: list[torch.Tensor] = []
    quantize = with_ddoq(device)

    def method(X: torch.Tensor, k: int, seed: int) -> Points:
        if not kept or kept[0].dtype != X.dtype:
            kept[:] = [X.cpu()]
        return quantize(kept[0], k, seed)

    return method


def on_cpu(classes: int) -> Method:
    """The C core on the first classes; their time is scaled by the caller."""

    def method(X: torch.Tensor, k: int, seed: int) -> Points:
        return with_ddoq("cpu")(X[:classes].cpu(), k, seed)

    return method


def squares(X: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Squared distances (classes, n, k), float32, by products in the samples' type."""
    products = torch.bmm(X, points.to(X.dtype).transpose(1, 2)).float()
    return (X.float() ** 2).sum(2, keepdim=True) - 2 * products + (points.float() ** 2).sum(2)[:, None]


def torch_start(X: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
    """Greedy k-means++, batched over the classes."""
    classes, n, _ = X.shape
    trials, every = 2 + int(math.log(k)), torch.arange(classes, device=X.device)
    first = torch.randint(n, (classes, 1), generator=generator, device=X.device)
    points = X[every[:, None], first].float()
    nearest = squares(X, points)[:, :, 0].clamp_(min=0)
    for _ in range(1, k):
        drawn = torch.multinomial(nearest + 1e-30, trials, generator=generator)
        candidates = X[every[:, None], drawn]
        after = torch.minimum(nearest[:, :, None], squares(X, candidates).clamp_(min=0))
        best = after.sum(1).argmin(1)
        points = torch.cat([points, candidates[every, best][:, None].float()], dim=1)
        nearest = after[every, :, best]
    return points


def with_torch(X: torch.Tensor, k: int, seed: int) -> Points:
    """Lloyd's iterations to the fixed point of the labels, batched; an empty cell keeps its point."""
    generator = torch.Generator(X.device).manual_seed(seed)
    found = []
    for part in X.split(CHUNK):
        points, labels = torch_start(part, k, generator), None
        for _ in range(MOST_ITERATIONS):
            new = squares(part, points).argmin(2)
            if labels is not None and torch.equal(new, labels):
                break
            labels = new
            members = torch.nn.functional.one_hot(labels, k).to(part.dtype).transpose(1, 2)
            counts = members.sum(2, keepdim=True, dtype=torch.float32)
            means = torch.bmm(members, part).float() / counts.clamp(min=1)
            points = torch.where(counts > 0, means, points)
        found.append(points)
    return torch.cat(found)


def with_faiss(X: torch.Tensor, k: int, seed: int) -> Points:
    import faiss

    found = []
    for one in X:
        options = {"niter": 25, "seed": seed + 1, "min_points_per_centroid": 1, "gpu": True}
        kmeans = faiss.Kmeans(X.shape[2], k, **options)
        kmeans.train(one.float().cpu().numpy())  # it takes arrays of the host alone
        found.append(torch.as_tensor(kmeans.centroids, device=X.device))
    return torch.stack(found)


def with_cuml(X: torch.Tensor, k: int, seed: int) -> Points:
    from cuml.cluster import KMeans

    found = []
    for one in X:
        kmeans = KMeans(n_clusters=k, random_state=seed, n_init=1, output_type="cupy").fit(one.float())
        found.append(torch.as_tensor(kmeans.cluster_centers_, device=X.device))
    return torch.stack(found)


def with_flash_kmeans(X: torch.Tensor, k: int, seed: int) -> Points:
    from flash_kmeans import batch_kmeans_Euclid

    torch.manual_seed(seed)
    return torch.cat([batch_kmeans_Euclid(part, n_clusters=k, tol=1e-4)[1].float() for part in X.split(CHUNK)])


def methods(device: str, cpu_classes: int) -> dict[str, Method]:
    found: dict[str, Method] = {
        "ddoq": with_ddoq(device),
        "ddoq, Lloyd": with_ddoq(device, refine="none", n_init=1),
        "ddoq, from the host": from_host(device),
        "torch": with_torch,
        "ddoq, CPU": on_cpu(cpu_classes),
    }
    others = {"faiss": with_faiss, "cuml": with_cuml, "flash_kmeans": with_flash_kmeans}
    found |= {name: method for name, method in others.items() if importlib.util.find_spec(name)}
    if "faiss" in found and not hasattr(importlib.import_module("faiss"), "StandardGpuResources"):
        del found["faiss"]  # its CPU build
    return found


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], object], device: str) -> float:
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def peaks(dtype: torch.dtype, device: str) -> dict[str, float]:
    """FLOP/s of a product, bytes/s of a copy: the best of 10."""
    size, count = (8192, 1 << 30) if device != "cpu" else (512, 1 << 22)
    a = torch.randn(size, size, device=device).to(dtype)
    x = torch.zeros(count, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    product = min(seconds_of(lambda: a @ a, device) for _ in range(10))
    copy = min(seconds_of(lambda: y.copy_(x), device) for _ in range(10))
    return {"flops": 2 * size**3 / product, "bytes_per_second": 2 * count / copy}


def floor_seconds(X: torch.Tensor, k: int, iterations: float, peak: dict[str, float]) -> float:
    """What the floor's work takes at the peaks; one start, no single-point moves."""
    classes, n, d = X.shape
    item, trials = X.element_size(), 2 + int(math.log(k))
    product = max(2.0 * n * n * d / peak["flops"], n * d * item / peak["bytes_per_second"])
    gram = 4.0 * n * n * 3 + 4.0 * n * k * (trials + 1)  # written; guard and first sums; rows of candidates
    sums = 24.0 * k * n * iterations
    return classes * (product + (gram + sums + n * d * item + 4.0 * k * d) / peak["bytes_per_second"])


def distortion(X: torch.Tensor, points: torch.Tensor) -> float:
    """Mean over classes of the mean squared distance to the nearest point, in float32."""
    found = [
        torch.cdist(one[None].float(), own[None].float().to(one.device)).min(2).values.double().square().mean().item()
        for one, own in zip(X, points, strict=False)
    ]
    return statistics.fmean(found)


def measure(name: str, method: Method, X: torch.Tensor, k: int, device: str, scale: float) -> dict[str, Any]:
    method(X, k, 0)
    times, found = [], []
    for seed in range(1, 1 + RUNS):
        made: list[Points] = []
        times.append(seconds_of(lambda seed=seed, made=made: made.append(method(X, k, seed)), device) * scale)
        found.append(distortion(X, made[0]))
    row = {
        "milliseconds_min": round(1e3 * min(times), 2),
        "milliseconds_median": round(1e3 * statistics.median(times), 2),
        "runs": RUNS,
        "distortion": round(statistics.fmean(found), 4),
    }
    if name.startswith("ddoq") and scale == 1:
        row["iterations"] = round(statistics.fmean(ITERATIONS[-RUNS:]), 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shape", type=int, nargs=2, default=[1300, 4096], help="samples and features of a class")
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--dtypes", nargs="*", default=["float16", "float32"])
    parser.add_argument("--methods", nargs="*", help="those that are installed")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cpu-classes", type=int, default=10)
    parser.add_argument("--again", action="store_true", help="measure rows again that are there")
    options = parser.parse_args()
    if options.device != "cpu" and not ddoq.cuda.is_available():
        raise SystemExit(f"no GPU: {ddoq.cuda.why_not()}")
    known = methods(options.device, options.cpu_classes)
    result = load_result("cuda_quantize") if options.device != "cpu" else {}
    here = result.setdefault(str(ddoq.info()["cuda"]), {"facts": facts(("numpy", "torch", "faiss-gpu", "cuml"))})
    for dtype in options.dtypes:
        X = synthetic(options.classes, *options.shape, getattr(torch, dtype), options.device)
        cell = here.setdefault(
            f"{options.classes} x {options.shape[0]} x {options.shape[1]}, k {options.k}, {dtype}", {}
        )
        cell["peaks"] = peaks(X.dtype, options.device)
        for name in options.methods or known:
            if name not in cell or options.again:
                scale = options.classes / options.cpu_classes if name == "ddoq, CPU" else 1.0
                cell[name] = measure(name, known[name], X, options.k, options.device, scale)
                if "iterations" in cell[name]:
                    floor = floor_seconds(X, options.k, cell[name]["iterations"], cell["peaks"])
                    cell[name]["share_of_roofline"] = round(1e3 * floor / cell[name]["milliseconds_median"], 4)
            print(f"{dtype}  {name:20s}", cell[name], flush=True)
            if options.device != "cpu":
                save_result("cuda_quantize", result)


if __name__ == "__main__":
    main()
