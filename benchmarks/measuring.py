"""What the benchmarks share: the machine they ran on, medians, tables, and a command's time and memory."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

_SAMPLE_S = 0.1
_PROC = Path("/proc")
_ADOPT_ORPHANS = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""


def machine() -> dict[str, Any]:
    """Cores, processor, memory, system and load: what a figure means nothing without."""
    processor = platform.processor() or platform.machine()
    information = _PROC / "cpuinfo"
    if information.is_file():
        names = [line.split(":")[1].strip() for line in information.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": processor,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def versions(*names: str) -> dict[str, str]:
    """Versions of the installed distributions of these names."""
    return {name: metadata.version(name) for name in names}


ECGLM_VERSIONS = ("ecglm", "duckdb", "jinja2", "numpy", "polars", "pyarrow", "scipy", "xxhash")


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows of the same keys as a table; numbers to the right."""
    if not rows:
        return
    names = list(rows[0])
    cells = [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[place]) for line in cells)) for place, name in enumerate(names)]
    right = [all(isinstance(row[name], int | float | None) for row in rows) for name in names]
    print(f"\n{title}")
    for line in (names, *cells):
        parts = [
            text.rjust(width) if is_number else text.ljust(width)
            for text, width, is_number in zip(line, widths, right, strict=True)
        ]
        print("  " + "  ".join(parts).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show_environment(content: Mapping[str, Any]) -> None:
    """Prints machine and versions."""
    of_machine = content["machine"]
    print(
        f"{of_machine['cores']} cores ({of_machine['processor']}), {of_machine['memory_gib']} GiB,"
        f" Python {of_machine['python']}, load {of_machine['load_average']} at the start"
    )
    for name, known in content["versions"].items():
        print(f"{name}: " + ", ".join(f"{library} {version}" for library, version in known.items()))


# ----------------------------------------------------------------------------------------- time and memory of a command


@dataclass
class Measured:
    """A finished command."""

    wall_s: float
    cpu_s: float
    """Of all its processes."""
    peak_mib: float
    """Largest sum of proportional set sizes over the command's processes: shared pages counted once."""
    peak_anonymous_mib: float
    """The same without pages of files, which the kernel can drop at any time."""
    stdout: str


class CommandError(RuntimeError):
    """A command that ended with an exit code other than 0."""


def run_command(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> Measured:
    """Runs a command to its end and measures it with all its child processes.

    Raises:
        CommandError: the exit code was not 0; holds the end of its stderr.
    """
    if platform.system() == "Linux":  # what workers were forked from ends after the command, with their processor time
        ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1)
    before = os.times()
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    watch = _Watch(process.pid)
    watch.start()
    stdout, stderr = process.communicate()
    wall = time.perf_counter() - started
    watch.stop()
    for pid in watch.seen:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    after = os.times()
    if process.returncode:
        raise CommandError(f"{' '.join(map(str, command))}\nended with {process.returncode}:\n{stderr[-4000:]}")
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return Measured(wall, cpu, watch.peak / 1024, watch.peak_anonymous / 1024, stdout)


class _Watch(threading.Thread):
    """Samples the memory of a process and its descendants, in KiB."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._ended = pid, threading.Event()
        self.peak = self.peak_anonymous = 0
        self.seen: set[int] = set()

    def run(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            pids = _descendants(self._pid)
            self.seen.update(pids)
            sizes = [_memory(pid) for pid in pids]
            self.peak = max(self.peak, sum(whole for whole, _ in sizes))
            self.peak_anonymous = max(self.peak_anonymous, sum(anonymous for _, anonymous in sizes))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _descendants(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])
    found = [root] if root in parents else []
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Proportional set size and its anonymous part; resident sizes where the kernel does not tell these."""
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if line.endswith("kB")}
        return sizes["Pss"], sizes.get("Pss_Anon", sizes.get("Anonymous", sizes["Pss"]))
    except (OSError, KeyError, ValueError):
        pass
    try:
        text = (_PROC / str(pid) / "status").read_text()
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if line.endswith("kB")}
        return sizes.get("VmRSS", 0), sizes.get("RssAnon", sizes.get("VmRSS", 0))
    except OSError:
        return 0, 0


def print_json(content: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    print(json.dumps(content, ensure_ascii=False, indent=2))
