"""The process a model runs in: `python -m ecglm.bench.adapters.worker IN OUT`, spoken to in lines of JSON.

Line by line: the target and its options in; what the model says of itself out; then batches in, answers out. What the
model prints goes to the standard streams, which are not those of the conversation.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from ecglm.bench.adapters import about_model, given
from ecglm.bench.protocol import Item, Recording

_GROUP = 1000
_GROUP_SECONDS = 0.2


def main() -> None:
    """Answers until the conversation ends."""
    _end_with_parent()
    incoming = os.fdopen(int(sys.argv[1]), "r", encoding="utf-8")
    outgoing = os.fdopen(int(sys.argv[2]), "w", encoding="utf-8")
    start = json.loads(incoming.readline())
    sys.path[:0] = [path for path in start["path"] if path not in sys.path]
    try:
        model = load(start["target"], start["options"])
        _say(outgoing, {"about": _about(model, start["target"])})
    except BaseException as error:  # whatever the model's code raises is told to the parent, which names it
        _say(outgoing, {"failed": describe_error(error)})
        return
    for line in incoming:
        _answer(model, json.loads(line), outgoing)


def _end_with_parent() -> None:
    """A killed run leaves no model behind, holding a GPU say; only Linux can be asked for that."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)


def load(target: str, options: dict[str, str]) -> Any:
    """The model that `module:name` is: a function, a class made with the options, or an object with `answer`."""
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise ValueError(f"{target!r} is not of the form module:name")
    found: Any = importlib.import_module(module_name)
    for part in name.split("."):
        found = getattr(found, part)
    if isinstance(found, type):
        found = found(**options)
    elif options and not hasattr(found, "answer"):
        import functools

        found = functools.partial(found, **options)
    elif options:
        raise ValueError(f"{target} is an object, so it takes no options; name its class to give it some")
    if not hasattr(found, "answer") and not callable(found):
        raise ValueError(f"{target} is neither a function nor has it a method answer(batch)")
    return found


def _about(model: Any, target: str) -> dict[str, Any]:
    about = about_model(model, target, _source_hash(target))
    trained_on = None if about.trained_on is None else sorted(about.trained_on)
    return {**vars(about), "trained_on": trained_on}


def _source_hash(target: str) -> str:
    """Hash of the module's file: a model that says nothing of itself is taken as changed when its file is."""
    module = importlib.import_module(target.partition(":")[0])
    try:
        path = inspect.getsourcefile(module)
    except TypeError:
        path = None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:32] if path else target


def _answer(model: Any, batch: dict[str, Any], outgoing: IO[str]) -> None:
    items = read_items(batch)
    group: list[dict[str, Any]] = []
    last = time.monotonic()
    try:
        answers: Iterator[Any] = iter(model.answer(items) if hasattr(model, "answer") else model(items))
        for answer in answers:
            group.append(asdict(given(answer)))
            if len(group) >= _GROUP or time.monotonic() - last > _GROUP_SECONDS:
                _say(outgoing, {"answers": group})
                group, last = [], time.monotonic()
    except BaseException as error:  # also SystemExit and KeyboardInterrupt of the model's own making
        _say(outgoing, {"answers": group, "error": describe_error(error)})
        traceback.print_exc()
        return
    _say(outgoing, {"answers": group, "done": True})


def read_items(batch: dict[str, Any]) -> list[Item]:
    """Items from their plain form; questions about one ECG share its recording, which is read at most once."""
    recordings = {
        told["ecg_id"]: Recording(
            told["ecg_id"],
            Path(told["root"]),
            told["signal_path"],
            tuple(told["leads"]),
            told["sampling_hz"],
            told["measurements"],
            None if told["store"] is None else Path(told["store"]),
        )
        for told in batch["recordings"]
    }
    return [
        Item(
            told["id"],
            tuple(recordings[ecg_id] for ecg_id in told["ecg_ids"]),
            told["question"],
            tuple(told["options"]),
            told["multiple"],
            tuple(told["codes"]),
            told["unit"],
        )
        for told in batch["items"]
    ]


def plain_items(items: list[Item]) -> dict[str, Any]:
    """Items as plain data, each recording once."""
    recordings = {recording.ecg_id: recording for item in items for recording in item.recordings}
    return {
        "recordings": [
            {
                "ecg_id": recording.ecg_id,
                "root": str(recording.root.absolute()),
                "signal_path": recording.signal_path,
                "leads": recording.leads,
                "sampling_hz": recording.sampling_hz,
                "measurements": recording.measurements,
                "store": None if recording.store is None else str(recording.store.absolute()),
            }
            for recording in recordings.values()
        ],
        "items": [
            {
                "id": item.id,
                "ecg_ids": [recording.ecg_id for recording in item.recordings],
                "question": item.question,
                "options": item.options,
                "multiple": item.multiple,
                "codes": item.codes,
                "unit": item.unit,
            }
            for item in items
        ],
    }


def describe_error(error: BaseException) -> str:
    """Kind, message and the last line of the model's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) != Path(__file__)]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}"[:2000] + place


def _say(outgoing: IO[str], content: dict[str, Any]) -> None:
    outgoing.write(json.dumps(content) + "\n")
    outgoing.flush()


if __name__ == "__main__":
    main()
