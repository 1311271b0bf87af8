"""Compile every kernel as :mod:`pyg_avig.ops.kernels.gpu` launches it, for GPUs that are not here.

Prints a line of JSON for each: what it was compiled for, and what came out. Needs a process of its
own, as what the tests' own Triton knows of the kernels is to interpret them.
"""

import json
import sys

import torch
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pyg_avig.ops import kernels
from pyg_avig.ops.kernels import gpu

NAMES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.int64: "i64",
}


def compiled(target, dtype):
    def run(name, launches):
        kernel = gpu._kernel(name)
        for _, args, sizes in launches:
            constants = {n: v for n, v in sizes.items() if n in kernel.arg_names}
            types = [f"*{NAMES[x.dtype]}" if isinstance(x, torch.Tensor) else "i32" for x in args]
            signature = dict(zip(kernel.arg_names, types, strict=False))
            signature |= dict.fromkeys(constants, "constexpr")
            options = {n: v for n, v in sizes.items() if n not in constants}
            found = compile(ASTSource(kernel, signature, constants), target, options)
            line = {"kernel": name, "dtype": str(dtype), "target": str(target.arch), **sizes}
            line |= {"shared": found.metadata.shared, "binary": len(found.kernel)}
            line["tf32"] = any("tf32" in str(text) for text in found.asm.values())
            print(json.dumps(line), flush=True)
        return True

    return run


def launch_all(dtype):
    a, b = torch.zeros(2, 84, 16, dtype=dtype)
    wide = kernels.weight_dtype(a)
    scales = [torch.zeros(84, dtype=wide)] * 2
    for axes in ([1, 7, 12], [1, 42, 2]):
        weights = gpu.axial_pairs(a, b, scales, 1, axes)
        gpu.axial_pairs(a, b, [], 1, axes)
        gpu.axial_spread(a, weights, False, 1, axes)
        gpu.axial_spread(a, weights * 2, True, 1, axes * 2)
    pointer, columns = torch.tensor([0, 2, 3]), torch.tensor([1, 0, 1])
    for heads, channels in ((1, 128), (8, 16)):
        x = torch.zeros(2, heads, channels, dtype=dtype)
        scales = [torch.zeros(2, heads, dtype=wide)] * 2
        gpu.csr_pairs(pointer, columns, x, x, [])
        weight = gpu.csr_pairs(pointer, columns, x, x, scales)
        gpu.csr_spread(pointer, columns, None, x, weight)
        gpu.csr_spread(pointer, columns, columns, x, weight)


if __name__ == "__main__":
    backend, arch, warp = sys.argv[1:]
    target = GPUTarget(backend, int(arch) if arch.isdigit() else arch, int(warp))
    for dtype in NAMES:
        if dtype.is_floating_point:
            gpu._run = compiled(target, dtype)
            launch_all(dtype)
