"""The source of a build, read once into the work folder."""

from __future__ import annotations

from pathlib import Path

from ecglm.synth.build.blocks import MEASURED
from ecglm.synth.build.config import BuildConfig
from ecglm.synth.build.inputs import ecgs_table, open_source, source_root, waveform_files, write_source
from ecglm.synth.build.progress import Progress
from ecglm.synth.build.source_files import SourceFiles
from ecglm.synth.build.storing import waveforms_of
from ecglm.synth.corpus import Corpus
from ecglm.synth.measure.ecgs import Waveforms


def read_source(
    tell: Progress, config: BuildConfig, work: Path, previous: Corpus | None
) -> tuple[SourceFiles, Waveforms]:
    """Writes the tables of the source a configuration names; what was written, and how waveforms are read.

    Simulated ECGs are made first. Waveforms that are to be measured are put into a signal store where there is one.
    """
    source = open_source(config, source_root(config, work, tell))
    files = write_source(work, source, config, previous, tell)
    if MEASURED in files.providers and files.taken_over is None and config.folder is not None:
        return files, waveforms_of(source, ecgs_table(source), config.workers, tell)
    return files, waveform_files(source)
