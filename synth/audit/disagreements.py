"""Where labels and criteria disagree: a list for whoever reviews the labels, the strongest first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecglm.synth.audit.judged import NORMAL, Judged, Rulebook, binding
from ecglm.synth.audit.standing import CERTAINTIES, Labels, Standing
from ecglm.synth.evidence_texts import evidence_texts, satisfied
from ecglm.synth.findings import (
    MET,
    NOT_ASSESSABLE,
    NOT_MET,
    VERDICTS,
    Bools,
    Doubles,
    evidence_lists,
)
from ecglm.synth.schema import AUDIT_DISAGREEMENTS, NOISE_COLUMNS

KINDS = ("contradicted", "unsupported", "suggested")
CONTRADICTED, UNSUPPORTED, SUGGESTED = range(len(KINDS))

_TAKEN = ("ecg_id", "patient_id", "strat_fold", "age_years", "sex", "validated_by_human", "report", "signal_path")


def disagreement_table(
    judged: Judged, labels: Labels, ecgs: pa.Table, source_labels: pa.Table, rulebook: Rulebook
) -> pa.Table:
    """Rows of schema.AUDIT_DISAGREEMENTS for one provider, strongest first, those of unknown strength last."""
    kinds = disagreeing(judged, labels, rulebook)
    beyond = rule_strengths(judged.verdicts, judged.values, rulebook)
    strengths = _statement_strengths(kinds, beyond, judged, rulebook)
    ecg, statement = np.nonzero(kinds >= 0)  # rows in the order of ECGs, then statements
    criteria = _criteria(kinds >= 0, beyond, judged, rulebook)
    strength = strengths[ecg, statement]
    taken = ecgs.select(_TAKEN).take(pa.array(ecg))
    certainty = labels.certainty[ecg, statement]
    likelihood = labels.likelihood[ecg, statement]
    codes = [rulebook.codes[each] for each in range(len(rulebook.codes))]
    names = [rulebook.guidelines.by_code[code].name for code in codes]
    table = pa.table(
        {
            **{name: taken[name] for name in _TAKEN},
            "provider": pa.repeat(judged.provider, len(ecg)),
            "code": pa.array(codes, pa.string()).take(pa.array(statement)),
            "name": pa.array(names, pa.string()).take(pa.array(statement)),
            "kind": pa.array(KINDS).take(pa.array(kinds[ecg, statement])),
            "certainty": pa.array(CERTAINTIES).take(pa.array(certainty, mask=certainty < 0)),
            "likelihood": pa.array(likelihood, mask=np.isnan(likelihood)),
            "noted": _noted(ecgs).take(pa.array(ecg)),
            "labels": _labels_of(ecgs, source_labels).take(pa.array(ecg)),
            "strength": pa.array(strength, mask=np.isnan(strength)),
            "criteria": criteria,
        }
    )
    order = np.lexsort((statement, ecg, -np.nan_to_num(strength, nan=-1.0)))
    return table.take(pa.array(order)).select(AUDIT_DISAGREEMENTS.names).cast(AUDIT_DISAGREEMENTS)


def disagreeing(judged: Judged, labels: Labels, rulebook: Rulebook) -> npt.NDArray[np.int8]:
    """(n_ecgs, n_codes): which kind of disagreement, -1 for none.

    A statement is suggested where a criterion is met that suggests it, not by a narrow QRS complex alone.
    """
    positive = labels.standing == Standing.POSITIVE
    kinds = np.full(positive.shape, -1, np.int8)
    kinds[positive & (judged.statements == NOT_MET)] = UNSUPPORTED
    kinds[positive & judged.contradicted] = CONTRADICTED
    telling = (judged.verdicts == MET) & rulebook.suggesting
    suggested = (labels.standing == Standing.CLEAR_NEGATIVE) & (judged.statements == MET)
    suggested &= np.stack([telling[:, place].any(axis=1) for place in rulebook.places], axis=1)
    if NORMAL in rulebook.codes:  # values in their normal ranges do not make a normal ECG
        suggested[:, rulebook.codes.index(NORMAL)] = False
    kinds[suggested] = SUGGESTED
    return kinds


def spreads(values: Doubles) -> Doubles:
    """(n_limits,) a quarter of the width of the middle 95 % of each compared value; NaN for a yes or no.

    About one standard deviation of a normal distribution, but not moved by a few wild values.
    """
    found = np.full(values.shape[1], np.nan)
    for number, column in enumerate(values.T):
        known = column[~np.isnan(column)]
        if len(np.unique(known)) > 2:
            low, high = np.quantile(known, (0.025, 0.975))
            found[number] = (high - low) / 4 or np.nan
    return found


def rule_strengths(verdicts: npt.NDArray[np.int8], values: Doubles, rulebook: Rulebook) -> Doubles:
    """(n_ecgs, n_rules) how far beyond its limit the value lies that decides, in spreads of that value; NaN if unknown.

    Of the limits on the side of the verdict the nearest one counts. Where all of them are needed for a criterion that
    is met, or any would do for one that is not met, this is the distance to the other verdict; else it is less.
    """
    spread = spreads(values)
    strengths = np.full(verdicts.shape, np.nan)
    for number, limit in enumerate(rulebook.limits):
        rule = rulebook.rule_of_limit[number]
        value = values[:, number]
        distance = np.abs(value - limit.value)
        if limit.unit == "°":
            distance = np.minimum(distance, 360 - distance)
        distance = distance / spread[number]
        on_side = np.where(verdicts[:, rule] == MET, satisfied(value, limit), ~satisfied(value, limit))
        counts = on_side & ~np.isnan(distance) & (verdicts[:, rule] != NOT_ASSESSABLE)
        strengths[counts, rule] = np.fmin(strengths[counts, rule], distance[counts])
    return strengths


def _statement_strengths(kinds: npt.NDArray[np.int8], beyond: Doubles, judged: Judged, rulebook: Rulebook) -> Doubles:
    """(n_ecgs, n_codes) how far the values would have to move, at the least, for the disagreement to end.

    A contradiction is as strong as the strongest of its criteria, a lack of support as the nearest criterion, and a
    suggestion as the weakest of its defining criteria or the strongest supporting one that suggests it, whichever is
    less.
    """
    strengths = np.full(kinds.shape, np.nan)
    for number, (code, place) in enumerate(zip(rulebook.codes, rulebook.places, strict=True)):
        defining = rulebook.defining[place]
        telling = rulebook.suggesting[place] & ~defining
        must = binding(code, defining)
        of_code, met = beyond[:, place], judged.verdicts[:, place] == MET
        not_met = judged.verdicts[:, place] == NOT_MET
        found = {
            CONTRADICTED: _furthest(of_code, not_met & must),
            UNSUPPORTED: _nearest(of_code, not_met & ~defining),
            SUGGESTED: np.fmin(_nearest(of_code, met & defining), _furthest(of_code, met & telling)),
        }
        for kind, strength in found.items():
            rows = kinds[:, number] == kind
            strengths[rows, number] = strength[rows]
    return strengths


def _furthest(beyond: Doubles, chosen: Bools) -> Doubles:
    """The largest known number of each row, of those chosen; NaN if there is none."""
    found = np.where(chosen & ~np.isnan(beyond), beyond, -np.inf).max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(found), found, np.nan)


def _nearest(beyond: Doubles, chosen: Bools) -> Doubles:
    """The smallest known number of each row, of those chosen; NaN if there is none."""
    return -_furthest(-beyond, chosen)


def _criteria(chosen: Bools, beyond: Doubles, judged: Judged, rulebook: Rulebook) -> pa.ListArray:
    """For each chosen ECG and statement, in order, the criteria that could be assessed."""
    statement_of = np.concatenate(
        [np.full(place.stop - place.start, number) for number, place in enumerate(rulebook.places)]
        or [np.zeros(0, int)]
    ).astype(np.int64)
    assessed = judged.verdicts != NOT_ASSESSABLE
    wanted = chosen[:, statement_of] & assessed
    _, rule = np.nonzero(wanted)
    counts = np.stack([wanted[:, place].sum(axis=1) for place in rulebook.places], axis=1)[chosen]
    strength = beyond[wanted]
    of_rule = {
        "criterion": [rule.id for _, rule in rulebook.rules],
        "role": [rule.role for _, rule in rulebook.rules],
        "citation": [rulebook.guidelines.citation(rule.cite) for _, rule in rulebook.rules],
    }
    columns = {
        **{name: pa.array(texts, pa.string()).take(pa.array(rule)) for name, texts in of_rule.items()},
        "verdict": pa.array(VERDICTS).take(pa.array(judged.verdicts[wanted])),
        "evidence": evidence_lists(rulebook.rules, judged.values, wanted),
        "evidence_text": evidence_texts(rulebook.rules, judged.verdicts, judged.values, wanted).dictionary_decode(),
        "strength": pa.array(strength, mask=np.isnan(strength)),
    }
    item = AUDIT_DISAGREEMENTS.field("criteria").type.value_type
    arrays = [columns[field.name].cast(field.type) for field in item]
    structs = pa.StructArray.from_arrays(arrays, fields=list(item))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), structs)


def _noted(ecgs: pa.Table) -> pa.Array:
    """(n_ecgs,) what the source notes of each ECG that makes measurements less reliable."""
    columns = {name: pc.is_valid(ecgs[name]).to_pylist() for name in NOISE_COLUMNS}
    columns["pacemaker"] = pc.fill_null(ecgs["pacemaker"], False).to_pylist()
    rows = zip(*columns.values(), strict=True)
    return pa.array([[name for name, noted in zip(columns, row, strict=True) if noted] for row in rows], _TEXTS)


_TEXTS = pa.list_(pa.string())


def _labels_of(ecgs: pa.Table, labels: pa.Table) -> pa.Array:
    """(n_ecgs,) all codes of each ECG, in the order of the source."""
    row = pc.index_in(labels["ecg_id"], value_set=ecgs["ecg_id"].combine_chunks())
    known = pc.is_valid(row)
    places = row.filter(known).to_numpy()
    order = np.argsort(places, kind="stable")
    counts = np.bincount(places, minlength=ecgs.num_rows)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]).astype(np.int32)
    codes = labels["code"].filter(known).combine_chunks().take(pa.array(order))
    return pa.ListArray.from_arrays(pa.array(offsets), codes)
