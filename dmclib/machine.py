"""What computes here: device, bfloat16, processor, versions."""

import os
import platform
import re
from importlib import metadata
from pathlib import Path

import av
import torch

from dmclib.errors import DMCError


def choose_device(wanted: str = "auto") -> str:
    """The wanted device; ``auto`` is ``cuda`` where there is one, else ``cpu``.

    Raises:
        DMCError: there is no such device here.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    known = ["cpu"]
    if torch.cuda.is_available():
        known += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if wanted not in known:
        raise DMCError(f"there is no device {wanted!r} here: choose auto or {', '.join(known)}.")
    return wanted


def has_bf16(device: str = "auto") -> bool:
    """Whether a device of :func:`choose_device` has bfloat16 instructions."""
    if choose_device(device) != "cpu":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # the oldest torch lacks it
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def describe() -> dict[str, str | int | None]:
    """What a time depends on: processor, cores, threads, versions, GPU. Names no host, no path."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": av.__version__,
        "opencv": _version("opencv-contrib-python-headless"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def in_words() -> str:
    """:func:`describe` in words, to be printed above a table."""
    facts = describe()
    versions = ", ".join(f"{name} {facts[name]}" for name in ("python", "torch", "av", "opencv"))
    gpu = facts["gpu"] or "no CUDA GPU"
    return f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads; {gpu}; {versions}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")  # Linux only; elsewhere the architecture is all we know
    text = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.*\S)", text, re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()
