"""What is said at each step of reading an ECG in the clinicians' order, as columns of `facts`.

Rate, rhythm, axis, intervals, P wave, QRS complex, ST segment and T wave; limits and their sources are those of the
criteria of `NORM`. A step is NULL where what it needs was not measured, or not well.
"""

from __future__ import annotations

STEPS = """
WITH limits AS (
    SELECT ecg_id,
        any_value(verdict) FILTER (criterion = 'pr-not-long') AS pr_not_long,
        any_value(verdict) FILTER (criterion = 'pr-not-short') AS pr_not_short,
        any_value(verdict) FILTER (criterion = 'qrs-not-wide') AS qrs_not_wide,
        any_value(verdict) FILTER (criterion = 'qtc-not-long') AS qtc_not_long,
        any_value(evidence_text) FILTER (criterion = 'qtc-not-long') AS qtc_evidence,
        array_to_string(list_sort(list_distinct(list(citation) FILTER (criterion NOT LIKE 'rate%'))), '; ')
            AS step_citations,
        array_to_string(list_sort(list_distinct(list(citation) FILTER (criterion LIKE 'pr%' OR criterion LIKE 'q%'))),
            '; ') AS interval_citations,
        flatten(arg_min(evidence, place, 100)) AS step_evidence,
        flatten(arg_min(evidence, place, 100) FILTER (criterion LIKE 'pr%' OR criterion LIKE 'q%'))
            AS interval_evidence
    FROM norm_findings GROUP BY ecg_id
)
SELECT e.ecg_id, l.step_citations, l.interval_citations, l.step_evidence, l.interval_evidence,
    CASE WHEN (HR__Global < 60) <> (round(HR__Global) < 60) OR (HR__Global > 100) <> (round(HR__Global) > 100)
        THEN printf('%.2f/min', HR__Global) ELSE quantity(HR__Global, '/min') END
    || CASE WHEN HR__Global < 60 THEN ', below 60/min' WHEN HR__Global > 100
        THEN ', above 100/min' ELSE ', between 60 and 100/min' END AS rate_step,
    CASE WHEN P_Found_Global = 0 THEN 'no P waves are found'
         WHEN P_Found_Global = 1 THEN 'P waves are found' END
    || CASE WHEN QRS_Count_Global < 5 OR RR_Mean_Global IS NULL THEN ''
            WHEN RR_StdDev_Global <= 0.05 * RR_Mean_Global THEN ', RR intervals regular' || CASE
                WHEN Ectopic_Count_Global > 0 OR extra_beats IS NOT NULL OR e.ecg_id IN (
                    SELECT ecg_id FROM source_labels WHERE code IN ('PVC', 'PAC', 'PRC(S)', 'BIGU', 'TRIGU'))
                THEN ' apart from extra beats' ELSE '' END
            WHEN RR_StdDev_Global >= 0.1 * RR_Mean_Global THEN ', RR intervals irregular'
            ELSE ', RR intervals slightly irregular' END AS rhythm_step,
    CASE WHEN (QRS_AxisFront_Global < -30) <> (round(QRS_AxisFront_Global) < -30)
            OR (QRS_AxisFront_Global > 90) <> (round(QRS_AxisFront_Global) > 90)
            OR (QRS_AxisFront_Global < -90) <> (round(QRS_AxisFront_Global) < -90)
        THEN printf('%.2f°', QRS_AxisFront_Global) ELSE quantity(QRS_AxisFront_Global, '°') END
    || CASE WHEN QRS_AxisFront_Global BETWEEN -30 AND 90 THEN ', a normal axis'
        WHEN QRS_AxisFront_Global BETWEEN -90 AND -30 THEN ', left axis deviation'
        WHEN QRS_AxisFront_Global > 90 THEN ', right axis deviation' ELSE ', an extreme axis' END AS axis_step,
    CASE WHEN P_Found_Global = 0 THEN 'no PR interval, as no P waves are found'
         WHEN l.pr_not_long = 'not_met' THEN 'PR ' || quantity(PR_Int_Global, 'ms') || ', longer than 200 ms'
         WHEN l.pr_not_short = 'not_met' THEN 'PR ' || quantity(PR_Int_Global, 'ms') || ', shorter than 120 ms'
         WHEN l.pr_not_long = 'met' THEN 'PR ' || quantity(PR_Int_Global, 'ms') || ', within 120 to 200 ms' END
    || '; QRS ' || quantity(QRS_Dur_Global, 'ms')
    || CASE l.qrs_not_wide WHEN 'met' THEN ', not above 110 ms' WHEN 'not_met' THEN ', above 110 ms' END
    || '; ' || l.qtc_evidence
    || CASE l.qtc_not_long WHEN 'met' THEN ', not prolonged' ELSE ', prolonged' END AS interval_step,
    CASE WHEN P_Found_Global = 0 THEN 'no P waves to measure'
         WHEN coalesce(P_Quality_Global, 3) >= 2 THEN 'duration ' || quantity(P_Dur_Global, 'ms')
            || CASE WHEN coalesce(P_Quality_II, 3) >= 2 AND P_Amp_II > 0.02
                    THEN ', ' || quantity(P_Amp_II, 'mV') || ' tall in lead II' ELSE '' END END AS p_step,
    CASE WHEN w.leads_measured THEN coalesce('Q (or QS) of at least 30 ms and 0.1 mV in ' || w.q_text,
        'no Q wave of 30 ms and 0.1 mV in any lead but aVR')
        || '; S in V1 plus the taller R in V5 or V6 '
        || quantity(abs(S_Amp_V1) + greatest(R_Amp_V5, R_Amp_V6), 'mV') END AS qrs_step,
    CASE WHEN w.leads_measured THEN CASE
        WHEN w.st_raised_text IS NULL AND w.st_lowered_text IS NULL
        THEN 'J point neither raised by 0.1 mV nor lowered by 0.05 mV in any lead but aVR'
        ELSE array_to_string(list_filter(['J point raised by at least 0.1 mV in ' || w.st_raised_text,
            'J point lowered by at least 0.05 mV in ' || w.st_lowered_text], lambda part: part IS NOT NULL), '; ') END
        || '; ' || coalesce('T inverted by at least 0.1 mV in ' || w.t_inverted_text,
            'no T wave of -0.1 mV or lower in any lead but aVR') END AS st_t_step
FROM measured_ecgs e LEFT JOIN limits l USING (ecg_id) LEFT JOIN lead_findings w USING (ecg_id)
"""
"""Needs the tables `measured_ecgs`, `source_labels`, `norm_findings` and `lead_findings`."""
