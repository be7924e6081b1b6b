"""What a build makes before it renders serves the next one, and never one that needs something else."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from test_build import SYNTH, bytes_of, copied_templates

from ecglm.synth.build import BuildConfig, build, inputs
from ecglm.synth.build.inputs import build_log, cached_stamp, input_stamps
from ecglm.synth.build.kept import blocks_held, found_prepared
from ecglm.synth.corpus import BUILD_LOG, write_json
from ecglm.synth.errors import SourceError
from ecglm.synth.sources.simulator import simulate

FEW = ("axis", "comparison")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source") / "ecgs"
    simulate(root, 24, 5)
    return root


@pytest.fixture
def ecgs(made: Path, tmp_path: Path) -> Path:
    """A source that may be changed."""
    subprocess.run(["cp", "-a", made, tmp_path / "ecgs"], check=True)
    return tmp_path / "ecgs"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ECGLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prepared"


@pytest.fixture
def built(ecgs: Path, tmp_path: Path) -> Callable[..., Path]:
    """Builds a corpus of the source into a folder of its own, with two families unless told otherwise."""

    def run(name: str, **changes: object) -> Path:
        defaults = {"ptbxl": ecgs, "workers": 1, "families": FEW, "out": tmp_path / name}
        return build(BuildConfig.model_validate({**defaults, **changes})).out

    return run


def prepared_before(corpus: Path) -> bool:
    return bool(build_log(corpus)["prepared_before"])


def refuse(*_: object) -> None:
    raise AssertionError("the source is read again")


def test_the_second_build_reads_nothing_and_writes_the_same_bytes(
    built: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = bytes_of(built("alone"))
    monkeypatch.setenv("ECGLM_CACHE", str(tmp_path / "cache"))
    first = built("first")
    assert not prepared_before(first), "nothing is kept unless someone asks for it"
    monkeypatch.setattr("ecglm.synth.build.read_source", refuse)
    monkeypatch.setattr("ecglm.synth.build.prepare_block", refuse)
    second = built("second")
    assert prepared_before(second)
    assert bytes_of(first) == bytes_of(second) == expected
    assert {path.name for path in tmp_path.iterdir()} == {"ecgs", "cache", "alone", "first", "second"}


def test_it_serves_other_templates_and_other_families(
    built: Callable[..., Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built("first")
    templates = copied_templates(tmp_path / "templates")
    changed = templates / "axis" / "axis-class.jinja"
    changed.write_text(re.sub("^version: .*", "version: 99", changed.read_text(), flags=re.MULTILINE))
    other = {"families": ("axis", "counterfactual"), "templates": templates}
    again = built("again", workers=2, **other)
    assert prepared_before(again)
    monkeypatch.delenv("ECGLM_CACHE")
    assert bytes_of(again) == bytes_of(built("alone", **other))


def relabel(ecgs: Path) -> None:
    path = ecgs / "ptbxl_database.csv"
    path.write_text(path.read_text().replace("'SR': 0.0", "'AFIB': 0.0", 1))


def test_what_was_made_of_other_labels_is_not_taken(
    ecgs: Path, built: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built("first")
    relabel(ecgs)
    again = built("again")
    assert not prepared_before(again)
    monkeypatch.delenv("ECGLM_CACHE")
    assert bytes_of(again) == bytes_of(built("alone"))


def other_waveform(ecgs: Path) -> None:
    one, other = sorted((ecgs / "records100").rglob("*.dat"))[:2]
    one.write_bytes(other.read_bytes())


def no_waveform(ecgs: Path) -> None:
    next((ecgs / "records100").rglob("*.dat")).unlink()


def moved(ecgs: Path) -> None:
    ecgs.rename(ecgs.with_name("elsewhere"))
    ecgs.symlink_to(ecgs.with_name("elsewhere"))


def unchanged(ecgs: Path) -> None:
    pass


def stamp_of(ecgs: Path, **options: object) -> str | None:
    if options.pop("wfdb", False):
        options["wfdb"] = ecgs
    config = BuildConfig.model_validate({"ptbxl": ecgs, **options})
    return cached_stamp(config, input_stamps(config))


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (relabel, {}),
        (other_waveform, {}),
        (no_waveform, {}),
        (moved, {}),
        (unchanged, {"limit": 20}),
        (unchanged, {"providers": ("measured",)}),
        (unchanged, {"families": ("axis", "ecgqa")}),
        (unchanged, {"sampling_hz": 100}),
        (unchanged, {"ptbxl": None, "wfdb": True}),
    ],
    ids=["label", "waveform", "no waveform", "place", "limit", "providers", "ecgqa", "rate", "as wfdb"],
)
def test_whatever_decides_what_is_made_is_in_the_stamp(
    change: Callable[[Path], None], options: dict[str, object], ecgs: Path, cache: Path
) -> None:
    before = stamp_of(ecgs)
    assert before is not None
    change(ecgs)
    assert stamp_of(ecgs, **options) != before


def test_guidelines_measurements_and_the_package_itself_are_in_the_stamp(
    ecgs: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ecglm.guidelines

    guidelines, plus = tmp_path / "guidelines", tmp_path / "plus"
    subprocess.run(["cp", "-r", Path(ecglm.guidelines.__file__).parent, guidelines], check=True)
    plus.mkdir()
    (plus / "features.csv").write_text("ecg_id\n")
    stamps = [stamp_of(ecgs), stamp_of(ecgs, guidelines=guidelines), stamp_of(ecgs, ptbxl_plus=[plus])]
    assert stamps[1] == stamps[0], "the same guidelines"
    path = guidelines / "conduction" / "1AVB.yaml"
    path.write_text(path.read_text().replace("value: 200", "value: 150"))
    stamps.append(stamp_of(ecgs, guidelines=guidelines))
    (plus / "features.csv").write_text("ecg_id\n1\n")
    stamps.append(stamp_of(ecgs, ptbxl_plus=[plus]))
    files = inputs._files_stamp
    with monkeypatch.context() as patched:
        patched.setattr(inputs, "_files_stamp", lambda root, kinds: files(root, kinds) + "." * (".py" in kinds))
        inputs.code_stamp.cache_clear()
        stamps.append(stamp_of(ecgs))
    inputs.code_stamp.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(inputs, "versions", lambda: {"duckdb": "99"})
        stamps.append(stamp_of(ecgs))
    assert len(set(stamps)) == len(stamps) - 1


def test_templates_families_and_workers_are_not_in_the_stamp(
    ecgs: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    templates = copied_templates(tmp_path / "templates")
    (templates / "axis" / "axis-class.jinja").unlink()
    assert stamp_of(ecgs, templates=templates, families=("axis",), workers=7) == stamp_of(ecgs)
    monkeypatch.delenv("ECGLM_CACHE")
    assert stamp_of(ecgs) is None


def test_a_damaged_file_is_made_again(built: Callable[..., Path], cache: Path) -> None:
    expected = bytes_of(built("first"))
    (path,) = cache.glob("*/00000/comparisons.arrow")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    second = built("second")
    assert not prepared_before(second)
    third = built("third")
    assert not prepared_before(third), "the first to have the cache for itself mends it"
    fourth = built("fourth")
    assert prepared_before(fourth)
    assert bytes_of(second) == bytes_of(third) == bytes_of(fourth) == expected


@pytest.mark.parametrize("name", ["prepared.json", "00000/block.json", "source/source.json", "knowledge/gate.arrow"])
def test_whatever_is_damaged_is_noticed(name: str, prepared: Path, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, cache / "stamp")
    with held(tmp_path, "work", "stamp") as blocks:
        assert found_prepared(blocks.parent) is not None
    (cache / "stamp" / name).write_text('{"rows": {"findings": 0}}')
    with held(tmp_path, "work", "stamp") as blocks:
        assert found_prepared(blocks.parent) is None
        assert not blocks.exists(), "others may be reading there"
    assert not (cache / "stamp" / "prepared.json").exists()
    assert (cache / "stamp" / "00000" / "block.json").exists() == ("block" not in name)


@pytest.fixture(scope="module")
def prepared(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build left in the cache."""
    root = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ECGLM_CACHE", str(root / "cache"))
        build(BuildConfig(ptbxl=made, workers=1, families=FEW, out=root / "corpus"))
    (folder,) = (root / "cache" / "prepared").iterdir()
    return folder


def test_a_damaged_table_is_written_again_and_no_corpus_shares_it(built: Callable[..., Path], cache: Path) -> None:
    first = built("first")
    expected = bytes_of(first)
    (path,) = cache.glob("*/findings-*.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    assert bytes_of(first) == expected
    second = built("second")
    assert bytes_of(second) == expected
    (second / "findings.parquet").write_bytes(b"edited")
    assert path.read_bytes() == content


def test_a_relative_folder_will_do(built: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ECGLM_CACHE", "relative")
    built("first")
    assert prepared_before(built("second"))


def test_values_of_other_code_are_not_taken_over_into_the_cache(
    built: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.delenv("ECGLM_CACHE")
        earlier = built("earlier")
        expected = bytes_of(earlier)
    log = build_log(earlier)
    write_json(earlier / BUILD_LOG, {**log, "input_stamp": "", "code": "another"})
    path = earlier / "measurements.parquet"
    values = pq.read_table(path)
    shifted = pc.add(values["HR__Global"], 7.0)
    pq.write_table(values.set_column(values.column_names.index("HR__Global"), "HR__Global", shifted), path)
    manifest = json.loads((earlier / "manifest.json").read_text())
    manifest["files"][path.name]["bytes"] = path.stat().st_size
    write_json(earlier / "manifest.json", manifest)
    assert bytes_of(built("earlier")) == expected, "measured again"
    assert bytes_of(built("other")) == expected


def test_a_block_that_was_made_otherwise_is_made_again(
    ecgs: Path, built: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that measured its waveforms lists those it rejected; one whose values were taken over does not."""
    next((ecgs / "records100").rglob("*.dat")).write_bytes(b"")
    with monkeypatch.context() as patched:
        patched.delenv("ECGLM_CACHE")
        expected = bytes_of(built("earlier", families=("axis",)))
    built("first")
    (mark,) = cache.glob("*/prepared.json")
    mark.unlink()
    assert not prepared_before(built("earlier", families=("axis", "comparison")))
    assert bytes_of(built("again", families=("axis",))) == expected


@contextlib.contextmanager
def held(tmp_path: Path, work: str, stamp: str, *, anew: bool = False) -> Iterator[Path]:
    """Where the blocks of a build are; what was there before, if anything, is finished."""
    folder = tmp_path / work
    folder.mkdir(exist_ok=True)
    with blocks_held(folder, stamp, anew=anew):
        yield folder / "blocks"


def finish(blocks: Path) -> None:
    (blocks / "00000").mkdir(parents=True)
    (blocks / "00000" / "block.json").touch()
    (blocks / "prepared.json").touch()


def test_only_one_build_writes_and_all_may_read_at_once(tmp_path: Path, cache: Path) -> None:
    with held(tmp_path, "one", "s") as writing, held(tmp_path, "other", "s") as meanwhile:
        assert writing.resolve() == cache / "s"
        assert not meanwhile.exists(), "it has blocks of its own"
        finish(writing)
    with held(tmp_path, "one", "s") as reading, held(tmp_path, "other", "s") as too:
        assert reading.resolve() == too.resolve() == cache / "s"
        with held(tmp_path, "third", "s", anew=True) as writing:
            assert not writing.exists()
    assert (cache / "s" / "prepared.json").is_file()


def test_never_resuming_takes_nothing(tmp_path: Path, cache: Path) -> None:
    with held(tmp_path, "one", "s") as blocks:
        finish(blocks)
    with held(tmp_path, "one", "s", anew=True) as blocks:
        assert blocks.resolve() == cache / "s"
        assert [path.name for path in blocks.iterdir()] == ["lock"]
        finish(blocks)


def test_those_used_last_are_kept_and_none_that_is_in_use_is_removed(tmp_path: Path, cache: Path) -> None:
    for stamp in ("five", "six", "five", "seven"):
        with held(tmp_path, stamp, stamp) as blocks:
            finish(blocks) if not (blocks / "00000").exists() else None
    assert {path.name for path in cache.iterdir()} == {"five", "seven"}
    with held(tmp_path, "five", "five"), held(tmp_path, "eight", "eight") as blocks, held(tmp_path, "nine", "nine"):
        assert {path.name for path in cache.iterdir()} == {"five", "eight", "nine"}


def test_what_holds_no_finished_block_is_removed(tmp_path: Path, cache: Path) -> None:
    with held(tmp_path, "one", "s") as blocks:
        (blocks / "00000").mkdir()
    assert list(cache.iterdir()) == []
    assert not os.path.lexists(blocks)


def test_a_build_that_makes_nothing_leaves_nothing(ecgs: Path, built: Callable[..., Path], cache: Path) -> None:
    for path in (ecgs / "records100").rglob("*.dat"):
        path.write_bytes(b"")
    with pytest.raises(SourceError, match="no ECG has a usable waveform"):
        built("none")
    assert [path for path in cache.rglob("*") if path.name == "prepared.json"] == []


def test_a_cache_that_cannot_be_written_is_done_without(
    built: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = bytes_of(built("first"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "prepared").write_text("no folder")
    monkeypatch.setenv("ECGLM_CACHE", str(tmp_path / "cache"))
    assert bytes_of(built("second")) == expected


@pytest.mark.slow
@pytest.mark.parametrize("delay", [1.8, 3.2])
def test_a_build_killed_at_any_moment_leaves_nothing_wrong(
    ecgs: Path, built: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    command = [*SYNTH, "build", "--ptbxl", str(ecgs), "--families", ",".join(FEW), "--workers", "2"]
    process = subprocess.Popen([*command, "--out", str(ecgs.parent / "killed")], start_new_session=True)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    other = bytes_of(built("other"))
    assert bytes_of(built("killed")) == other
    assert prepared_before(built("last"))
    monkeypatch.delenv("ECGLM_CACHE")
    assert bytes_of(built("alone")) == other


def test_ctrl_c_keeps_what_is_finished(ecgs: Path, built: Callable[..., Path], cache: Path) -> None:
    def stopped(stage: str, done: int, of: int) -> None:
        if stage == "rendering templates" and done > 2:
            raise KeyboardInterrupt

    config = BuildConfig(ptbxl=ecgs, workers=1, families=FEW, out=ecgs.parent / "stopped")
    with pytest.raises(KeyboardInterrupt):
        build(config, stopped)
    finished = len(list((ecgs.parent / ".stopped.building" / "done").iterdir()))
    assert finished > 1
    result = build(config)
    assert prepared_before(result.out)
    assert bytes_of(result.out) == bytes_of(built("other"))
