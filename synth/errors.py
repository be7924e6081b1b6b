"""The exceptions ecglm raises on purpose. Each message names what was found, where, and what to do."""

from __future__ import annotations


class ECGLMError(Exception):
    """Base of every error a user can cause and mend; the command line prints it and exits with 1."""


class SourceError(ECGLMError):
    """A source folder or one of its metadata files cannot be read as promised."""


class SignalError(ECGLMError):
    """One waveform record is missing, damaged or not what its source promises.

    `reason` is a short snake_case word to count by; the message names file, field and remedy.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class DefinitionError(ECGLMError):
    """A guideline, template, vocabulary or configuration file is not valid."""


class QueryError(ECGLMError):
    """A SQL text was refused, failed, or ran out of time or memory."""


class RenderError(ECGLMError):
    """A template could not be rendered for a row."""


class CorpusError(ECGLMError):
    """A corpus folder is missing, damaged, busy or cannot be written."""


class TaskError(DefinitionError):
    """A benchmark task, or the data it asks about, is not valid."""


class ModelError(ECGLMError):
    """A model under test cannot be loaded, or does not keep to the protocol."""


class PredictionError(ECGLMError):
    """A file of predictions does not fit the questions it should answer."""


class RunError(ECGLMError):
    """A run folder is missing, damaged, busy, or holds something else."""
