"""The view `lead_values`: what was measured in each lead, one row per ECG and lead."""

from __future__ import annotations

from ecglm.synth.schema import LEADS, LIMB_LEADS

_MEASURED = {
    "p_mv": "P_Amp",
    "p_negative_mv": "P-_Amp",
    "q_mv": "Q_Amp",
    "q_ms": "Q_Dur",
    "r_mv": "R_Amp",
    "r_peak_ms": "R_PeakTime",
    "r_prime_mv": "Rp_Amp",
    "s_mv": "S_Amp",
    "s_ms": "S_Dur",
    "s_prime_mv": "Sp_Amp",
    "qrs_mv": "QRS_AmpPP",
    "qrs_area": "QRS_Area",
    "st_mv": "ST_Amp",
    "st_60_mv": "ST_Amp60ms",
    "st_80_mv": "ST_Amp80ms",
    "t_mv": "T_Amp",
    "t_shape": "T_Morph",
    "p_quality": "P_Quality",
    "qrs_quality": "QRS_Quality",
    "t_quality": "T_Quality",
}
"""Column of the view and the measurement, without its lead, that it holds."""

_NOISE_WORDS = {
    "baseline_drift": "baseline drift",
    "static_noise": "static noise",
    "burst_noise": "burst noise",
    "electrode_problems": "electrode problems",
}


def _of_lead(number: int, lead: str) -> str:
    columns = ", ".join(f'"{measured}_{lead}" AS {name}' for name, measured in _MEASURED.items())
    noted = ", ".join(
        f"CASE WHEN list_contains({name}, '{lead}') THEN '{words}' END" for name, words in _NOISE_WORDS.items()
    )
    region = "limb" if lead in LIMB_LEADS else "chest"
    return (
        f"SELECT ecg_id, ecg_index, '{lead}' AS lead, {number} AS lead_number, '{region}' AS region,"
        f" coalesce(list_contains(leads, '{lead}'), true) AS recorded, {columns},"
        f" and_join(list_filter([{noted}], lambda words: words IS NOT NULL)) AS noise_text"
        f" FROM measured_ecgs"
    )


LEAD_VALUES = (
    "SELECT *, stable_hash(ecg_id || ':' || lead) AS draw FROM ("
    + " UNION ALL ".join(_of_lead(number, lead) for number, lead in enumerate(LEADS, start=1))
    + ")"
)
"""Needs the table `measured_ecgs`."""


def _leads_where(condition: str, value: str, name: str) -> str:
    described = f"lead || ' (' || quantity({value}, 'mV') || ')'"
    return (
        f"coalesce(list(lead ORDER BY lead_number) FILTER ({condition}), []) AS {name}_leads,"
        f" and_join(list({described} ORDER BY lead_number) FILTER ({condition})) AS {name}_text"
    )


LEAD_FINDINGS = f"""
SELECT ecg_id,
    {_leads_where("lead <> 'aVR' AND q_ms >= 30 AND q_mv <= -0.1", "q_mv", "q")},
    {_leads_where("lead <> 'aVR' AND st_mv >= 0.1", "st_mv", "st_raised")},
    {_leads_where("lead <> 'aVR' AND st_mv <= -0.05", "st_mv", "st_lowered")},
    {_leads_where("lead <> 'aVR' AND t_mv <= -0.1", "t_mv", "t_inverted")},
    arg_min(lead, (t_mv, lead_number)) FILTER (lead <> 'aVR') AS lowest_t_lead,
    min(t_mv) FILTER (lead <> 'aVR') AS lowest_t_mv,
    count(q_ms + q_mv + st_mv + t_mv) = 12 AND bool_and(qrs_quality IS NULL OR qrs_quality >= 2)
    AND bool_and(t_quality IS NULL OR t_quality >= 2 OR abs(t_mv) < 0.08) AS leads_measured
FROM lead_values GROUP BY ecg_id
"""
"""What all twelve leads show together; of use where `leads_measured`. Needs the table `lead_values`."""
