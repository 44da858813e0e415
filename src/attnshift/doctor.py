"""Examination of what an installation has and lacks. Nothing is downloaded."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from attnshift._version import __version__
from attnshift.errors import UnavailableError
from attnshift.execution.memory import keep_freed_memory
from attnshift.plugins import installed_plugins
from attnshift.weights_folder import WEIGHTS_FILES, weights_folder

__all__ = ["Finding", "examine"]

_State = Literal["fine", "lacking", "wrong"]
"""``lacking``: something optional is not there. ``wrong``: attacks may fail or differ."""


@dataclass(frozen=True)
class Finding:
    """Answer to one question: what was ``found``, and where it is not ``fine`` what to do."""

    topic: str
    name: str
    found: str
    state: _State = "fine"
    advice: str = ""


def examine() -> Iterator[Finding]:
    """All findings, topic by topic. It imports torch and what metrics read their weights with."""
    yield from _versions()
    yield from _devices()
    yield from _threads()
    yield from _memory()
    yield from _caches()
    yield from _weights()
    yield from _extras()
    yield from _plugins()


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "attnshift", __version__)
    yield Finding("versions", "Python", f"{platform.python_version()} on {platform.platform()}")
    for requirement in _requirements(""):
        found = _installed(requirement.name)
        if _fits(requirement):
            yield Finding("versions", requirement.name, found)
        else:
            yield Finding(
                "versions", requirement.name, found or "not installed", "wrong", f"pip install '{_plain(requirement)}'"
            )


def _devices() -> Iterator[Finding]:
    import torch

    usable = _usable_cores()
    capability = torch.backends.cpu.get_cpu_capability()
    yield Finding("devices", "cpu", f"{usable} of {os.cpu_count()} cores usable, {platform.machine()}, {capability}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            yield Finding("devices", f"cuda:{index}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB")
        return
    built = torch.version.cuda
    if built is None:
        yield Finding(
            "devices", "cuda", "this torch is built without CUDA", "lacking", "for a GPU install torch's CUDA build"
        )
    else:
        advice = "if this machine has an NVIDIA GPU, mend its driver (nvidia-smi)"
        yield Finding("devices", "cuda", f"torch is built for CUDA {built} and sees no GPU", "lacking", advice)


def _threads() -> Iterator[Finding]:
    import torch

    threads, usable = torch.get_num_threads(), _usable_cores()
    told = os.environ.get("OMP_NUM_THREADS")
    found = f"{threads}, OMP_NUM_THREADS {told or 'not set'}"
    if threads > usable:
        yield Finding(
            "threads", "torch", found, "wrong", f"set OMP_NUM_THREADS={usable}: more only wait for each other"
        )
    else:
        yield Finding("threads", "torch", found)


def _memory() -> Iterator[Finding]:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield Finding("memory", "machine", f"{total / 2**30:.0f} GiB")
    yield Finding("memory", "allocator", _allocator())
    for name in ("ATTNSHIFT_KEEP_MEMORY", "MALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        if told := os.environ.get(name):
            yield Finding("memory", name, told)


def _allocator() -> str:
    """Allocator of C that this process has, and what it does with memory that is free again."""
    try:
        loaded = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "not known on this system"
    other = next((name for name in ("jemalloc", "tcmalloc", "mimalloc") if name in loaded), None)
    return other or f"the system's, which {'keeps' if keep_freed_memory() else 'may give back'} what is freed"


def _caches() -> Iterator[Finding]:
    import torch
    from huggingface_hub import constants

    yield _folder("Hugging Face", Path(constants.HF_HUB_CACHE), "HF_HOME moves it")
    if constants.HF_HUB_OFFLINE:
        yield Finding("caches", "HF_HUB_OFFLINE", "set: models come from the cache alone")
    yield _folder("torch.hub", Path(torch.hub.get_dir()), "TORCH_HOME moves it")
    weights = weights_folder()
    if weights is None:
        yield Finding("caches", "ATTNSHIFT_WEIGHTS", "not set")
    elif weights.is_dir():
        yield Finding("caches", "ATTNSHIFT_WEIGHTS", str(weights))
    else:
        advice = "name a folder that is there, or take the variable away"
        yield Finding("caches", "ATTNSHIFT_WEIGHTS", f"{weights}, no such folder", "wrong", advice)


def _folder(name: str, folder: Path, how: str) -> Finding:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = f"{shutil.disk_usage(there).free / 2**30:.0f} GiB free"
    if not os.access(there, os.W_OK):
        return Finding("caches", name, f"{folder}, not writable", "lacking", f"downloads will fail; {how}")
    return Finding("caches", name, f"{folder}{'' if folder.exists() else ', not there yet'}, {free}")


def _weights() -> Iterator[Finding]:
    from attnshift.downloaded import dists_file, lpips_file
    from attnshift.metrics.features import clip_folder, inception_file

    files: Mapping[str, Callable[[], Path]] = {
        **{f"lpips-{network}": partial(lpips_file, network) for network in WEIGHTS_FILES},
        "dists": dists_file,
        "fid, kid": inception_file,
        "cmmd": clip_folder,
    }
    for name, find in files.items():
        try:
            yield Finding("weights of metrics", name, str(find()))
        except UnavailableError as error:
            yield Finding("weights of metrics", name, "not found", "lacking", str(error))


def _extras() -> Iterator[Finding]:
    for extra in sorted(_names_of_extras()):
        needed = _requirements(extra)
        missing = [each.name for each in needed if not _fits(each)]
        if missing:
            advice = f"pip install 'attnshift[{extra}]'"
            yield Finding("extras", extra, f"without {', '.join(missing)}", "lacking", advice)
        else:
            yield Finding("extras", extra, ", ".join(f"{each.name} {_installed(each.name)}" for each in needed))


def _plugins() -> Iterator[Finding]:
    for group, names in installed_plugins().items():
        for name, plugins in names.items():
            packages = " and ".join(each.package for each in plugins)
            family = group.removeprefix("attnshift.")
            if len(plugins) > 1:
                yield Finding("plug-ins", f"{family}: {name}", packages, "wrong", "uninstall one of them")
            else:
                yield Finding("plug-ins", f"{family}: {name}", packages)


def _requirements(extra: str) -> list[Requirement]:
    """Requirements of this package for this Python: its own, or those that ``extra`` adds."""

    def applies(each: Requirement, extra: str) -> bool:
        return each.marker is None or each.marker.evaluate({"extra": extra})

    stated = [Requirement(each) for each in _stated()]
    return [each for each in stated if applies(each, extra) and not (extra and applies(each, ""))]


def _names_of_extras() -> set[str]:
    try:
        return set(metadata("attnshift").get_all("Provides-Extra") or ())
    except PackageNotFoundError:
        return set()


def _stated() -> list[str]:
    """Requirements that the installed package states; none where it runs from source alone."""
    try:
        return requires("attnshift") or []
    except PackageNotFoundError:
        return []


def _installed(package: str) -> str:
    """Version of ``package``, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _fits(requirement: Requirement) -> bool:
    found = _installed(requirement.name)
    return bool(found) and requirement.specifier.contains(found, prereleases=True)


def _plain(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
