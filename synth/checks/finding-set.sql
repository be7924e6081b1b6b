-- description: An ECG on which not every criterion of the guidelines was decided exactly once.
-- severity: error
-- scope: corpus
-- needs: findings, guidelines
WITH decided_of AS (
    SELECT ecg_id, count(*) AS n_found, sum(hash(code, criterion)::HUGEINT) AS criteria FROM findings GROUP BY ecg_id
),
usual AS (
    SELECT (SELECT sum(n_criteria) FROM guidelines) AS n_expected, mode(criteria) AS criteria FROM decided_of
)
SELECT d.ecg_id, d.n_found, u.n_expected
FROM decided_of AS d, usual AS u WHERE d.n_found <> u.n_expected OR d.criteria <> u.criteria
